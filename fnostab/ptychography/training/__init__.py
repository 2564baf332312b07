"""Training of a network, from a trial's configuration to its outcome."""
