"""Find what a detector got wrong: frames without a photon, and pixels that are dead, hot or no numbers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter, rank_filter

__all__ = ["Defects", "find_defects", "no_number"]

CERTAIN_PHOTONS = 30  # that neighbours have on the whole: a pixel of theirs with none has a chance of exp(-30)
MOSTLY = 0.9  # of the frames: a pixel that is negative in so many is marked, others had a background subtracted
HOT_FACTOR = 5  # times what all but two of its neighbours have
NEAR_AXIS = 1  # pixels around the zero frequency, where an undiffracted beam may be as sharp


@dataclass(frozen=True, eq=False)
class Defects:
    """Pixels and patterns of a scan that are left out.

    Attributes:
        empty: frames that are zero or no number everywhere, bool of shape (n,).
        invalid: pixels that are no number in a frame, or negative in most, bool (M, M).
        dead: pixels that are 0 in all frames though their neighbours are not, bool (M, M).
        hot: pixels far above their neighbours on the whole, bool (M, M).
    """

    empty: NDArray[np.bool_]
    invalid: NDArray[np.bool_]
    dead: NDArray[np.bool_]
    hot: NDArray[np.bool_]

    @property
    def bad(self) -> NDArray[np.bool_]:
        """All pixels that do not count, bool (M, M)."""
        return self.invalid | self.dead | self.hot


def no_number(diffraction: NDArray[Any]) -> NDArray[np.bool_]:
    """Mask of values that are not finite, or an integer type's largest, by which detectors mark gaps."""
    found = ~np.isfinite(diffraction)
    if diffraction.dtype.kind in "iu":
        found |= diffraction == np.iinfo(diffraction.dtype).max
    return np.asarray(found)


def find_defects(diffraction: NDArray[Any], bad: NDArray[np.bool_]) -> Defects:
    """Find empty frames and bad pixels.

    Dead pixels are looked for in whole numbers alone: elsewhere it is not known what a photon is.

    Args:
        diffraction: as the file has it, zero frequency in the centre, shape (n, M, M).
        bad: pixels that are known to be bad, shape (M, M).
    """
    invalid_at = no_number(diffraction)
    values = np.where(invalid_at | bad, 0, diffraction).clip(0).astype(np.float32)
    empty = ~values.any(axis=(1, 2))
    below = (diffraction[~empty] < 0).mean(axis=0) > MOSTLY
    invalid = np.asarray(invalid_at[~empty].any(axis=0) | below)
    total = values[~empty].sum(axis=0, dtype=np.float64)
    total[invalid | bad] = 0
    whole = bool((values == np.rint(values)).all())
    dead = np.asarray((total == 0) & (median_filter(total, 3) >= CERTAIN_PHOTONS)) if whole else np.zeros_like(bad)
    second = rank_filter(
        total, -3, footprint=np.ones((3, 3)), mode="constant"
    )  # the pixel itself and one neighbour may be above it
    floor = CERTAIN_PHOTONS if whole else 1e-3 * total.mean()
    hot = np.asarray(total > HOT_FACTOR * second + floor)
    middle = len(total) // 2
    around = slice(middle - NEAR_AXIS, middle + NEAR_AXIS + 1)
    hot[around, around] = False
    return Defects(np.asarray(empty), invalid & ~bad, dead & ~bad & ~invalid, hot & ~bad)
