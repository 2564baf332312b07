"""Statistics that compare two arms: failure rates, losses, survival, and how many seeds that takes."""
