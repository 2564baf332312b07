"""Training of a network, from the configuration of a trial to its outcome."""
