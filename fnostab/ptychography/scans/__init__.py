"""Measured scans: the program's own file, foreign layouts that it is made of, and checks on the way."""
