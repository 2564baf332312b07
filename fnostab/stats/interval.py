"""The confidence interval that the functions of this package return."""

from typing import NamedTuple

LEVEL = 0.95  # nominal coverage of every interval


class Interval(NamedTuple):
    """A closed confidence interval. Functions return None when the data give none."""

    low: float
    high: float
