"""A running study in a terminal."""
