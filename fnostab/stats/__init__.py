"""What the numbers of two arms can and can't tell: rates, losses, survival, and how many seeds that takes."""
