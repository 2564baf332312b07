"""How a network learns, from a trial's configuration to its outcome."""
