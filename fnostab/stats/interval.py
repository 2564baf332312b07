"""An interval, as the functions of this package return it."""

from typing import NamedTuple

__all__ = ["Interval"]


class Interval(NamedTuple):
    """Both ends belong to it. Where data give no interval, functions return None instead."""

    low: float
    high: float
