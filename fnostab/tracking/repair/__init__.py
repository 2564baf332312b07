"""What brings a store up to date: sync, reconcile, thinning."""
