"""Candidates for a cure that were not chosen, each by its dotted path."""
