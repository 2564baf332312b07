"""Largest sizes of a study. A larger study is refused before anything is written."""

MOST_SEEDS = 10_000
MOST_ARMS = 1_000  # with grids and the values of a stress study's knob written out
MOST_INHERITED = 100  # arms in a chain of inheritance
MOST_TRIALS = 100_000
