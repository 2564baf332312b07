"""Reduce the points of a long curve for drawing, keeping its extremes."""

import numpy as np
from numpy.typing import NDArray

COLUMNS = 1600  # pixels: the width of a page at 220 dpi

Steps = NDArray[np.int64] | NDArray[np.float64]
Series = tuple[NDArray[np.int64], NDArray[np.float64]]  # increasing steps and values, both (n,)


def decimate(steps: Steps, values: NDArray[np.float64], columns: int = COLUMNS) -> tuple[Steps, NDArray[np.float64]]:
    """Select the points of a curve that are visible in a drawing ``columns`` pixels wide.

    In each pixel column the smallest and the largest value are kept, at their own steps, and the first value that is
    not finite. No spike and no gap is lost.

    Args:
        steps: increasing, shape (n,).
        values: shape (n,); values that are not finite are gaps.
        columns: width in pixels. Curves with at most two points per column are returned unchanged.

    Returns:
        The selected steps and values, both of shape (m,).
    """
    if steps.size <= 2 * columns:
        return steps, values
    column = ((steps - steps[0]) * (columns / (steps[-1] - steps[0] + 1))).astype(np.int64)
    gaps, finite = np.flatnonzero(~np.isfinite(values)), np.flatnonzero(np.isfinite(values))
    order = finite[np.lexsort((values[finite], column[finite]))]  # by column, then by value
    first = np.flatnonzero(np.diff(column[order], prepend=-1))
    smallest, largest = order[first], order[np.append(first[1:], order.size)[: first.size] - 1]
    kept = np.unique(np.concatenate([smallest, largest, gaps[np.unique(column[gaps], return_index=True)[1]]]))
    return steps[kept], values[kept]


def alone(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mask, shape (n,), of finite values between two gaps, which a line plot would not show."""
    gaps = np.pad(~np.isfinite(values), 1, constant_values=True)
    return np.asarray(gaps[:-2] & ~gaps[1:-1] & gaps[2:], dtype=np.bool_)
