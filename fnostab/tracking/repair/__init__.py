"""Bring a store up to date: sync, reconcile, thinning."""
