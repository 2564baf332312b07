"""Reduce the points of a long curve for a picture, keeping its extremes."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLUMNS", "Series", "alone", "decimate"]

COLUMNS = 1600  # of pixels: a page's width at 220 dots per inch

Steps = NDArray[np.int64] | NDArray[np.float64]
Series = tuple[NDArray[np.int64], NDArray[np.float64]]  # steps, rising, and values, both (n,)


def decimate(steps: Steps, values: NDArray[np.float64], columns: int = COLUMNS) -> tuple[Steps, NDArray[np.float64]]:
    """The points of a curve that a drawing ``columns`` pixels wide shows.

    Of each column of pixels the smallest and the largest value are kept, at their own steps, and so is
    the first value that is not finite, so that neither a spike nor a gap is ever left out.

    Args:
        steps: rising, shape (n,).
        values: shape (n,); those that are not finite are gaps.
        columns: of pixels. Curves of at most two points a column are returned as they are.
    """
    if steps.size <= 2 * columns:
        return steps, values
    column = ((steps - steps[0]) * (columns / (steps[-1] - steps[0] + 1))).astype(np.int64)
    gaps, finite = np.flatnonzero(~np.isfinite(values)), np.flatnonzero(np.isfinite(values))
    order = finite[np.lexsort((values[finite], column[finite]))]  # by column, and in it by value
    first = np.flatnonzero(np.diff(column[order], prepend=-1))
    smallest, largest = order[first], order[np.append(first[1:], order.size)[: first.size] - 1]
    kept = np.unique(np.concatenate([smallest, largest, gaps[np.unique(column[gaps], return_index=True)[1]]]))
    return steps[kept], values[kept]


def alone(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mark finite values between two gaps, which a line would not show; shape (n,)."""
    gaps = np.pad(~np.isfinite(values), 1, constant_values=True)
    return np.asarray(gaps[:-2] & ~gaps[1:-1] & gaps[2:], dtype=np.bool_)
