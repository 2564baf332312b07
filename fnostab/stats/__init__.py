"""Statistics that compare two arms: failure rates, losses, survival, and the number of seeds needed."""
