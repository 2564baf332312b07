"""An interval, as the functions of this package return it."""

from typing import NamedTuple

__all__ = ["LEVEL", "Interval"]

LEVEL = 0.95  # nominal coverage of every interval


class Interval(NamedTuple):
    """Both ends belong to it. Where data give no interval, functions return None instead."""

    low: float
    high: float
