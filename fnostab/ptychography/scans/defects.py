"""Detect defects of a detector: empty frames, and dead, hot or invalid pixels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter, rank_filter

CERTAIN_PHOTONS = 30  # expected photons with which a pixel has none by chance only with probability exp(-30)
MOSTLY = 0.9  # share of frames above which a negative pixel is invalid; rarer ones come from background subtraction
HOT_FACTOR = 5  # ratio to the third-largest value in the neighbourhood above which a pixel is hot
LARGEST_INTEGERS = (2**16 - 1, 2**32 - 1, 2**32)  # of uint16 and uint32, whose last one is rounded in float32
DARK = 0.01  # share of the median frame's intensity below which the beam was off
WIDEST_GAP = 1 / 8  # share of the side up to which zeros between light are a gap if they do not cross the frame
RARE = 1e-3  # share of values that may be smaller than an offset, as defects are
NEAR_AXIS = 1  # pixels around the zero frequency that are never hot, since the direct beam may be as sharp


@dataclass(frozen=True, eq=False)
class Defects:
    """Pixels and frames of a scan to leave out.

    Attributes:
        empty: frames without a positive value, or with almost none beside the others, bool of shape (n,).
        invalid: pixels that are invalid in any frame, or negative in most, bool of shape (M, M).
        dead: pixels that are 0 in all frames although their neighbours are not, rows and columns of the detector that
            are 0 between others, and narrow gaps that do not cross the whole frame, bool of shape (M, M).
        hot: pixels whose sum over frames is far above that of their neighbours, bool of shape (M, M).
    """

    empty: NDArray[np.bool_]
    invalid: NDArray[np.bool_]
    dead: NDArray[np.bool_]
    hot: NDArray[np.bool_]

    @property
    def bad(self) -> NDArray[np.bool_]:
        """All defective pixels, bool of shape (M, M)."""
        return self.invalid | self.dead | self.hot


def no_number(diffraction: NDArray[Any]) -> NDArray[np.bool_]:
    """Mask of invalid values: not finite, or the largest integer of the dtype, which marks detector gaps.

    The largest unsigned integers of detectors count in other dtypes too, if no value is larger.
    """
    found = ~np.isfinite(diffraction)
    if diffraction.dtype.kind in "iu":
        found |= diffraction == np.iinfo(diffraction.dtype).max
    largest = float(diffraction.max(where=~found, initial=0))
    if largest in LARGEST_INTEGERS:
        found |= diffraction == largest
    return np.asarray(found)


def find_defects(diffraction: NDArray[Any], bad: NDArray[np.bool_]) -> Defects:
    """Find empty frames and bad pixels.

    Dead pixels and gaps that do not cross the frame are only detected in whole numbers; otherwise the intensity of a
    photon is not known.

    Args:
        diffraction: patterns as in the file, with the zero frequency in the centre, shape (n, M, M).
        bad: pixels known to be bad, shape (M, M).
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
    )  # so the pixel and one neighbour may both be hot
    floor = CERTAIN_PHOTONS if whole else 1e-3 * total.mean()
    hot = np.asarray(total > HOT_FACTOR * second + floor)
    middle = len(total) // 2
    around = slice(middle - NEAR_AXIS, middle + NEAR_AXIS + 1)
    hot[around, around] = False
    total[hot] = 0
    dead |= _between(total.sum(axis=0), floor) | _between(total.sum(axis=1), floor)[:, None]
    if whole:
        dead |= _partial_gaps(total, floor)
    with np.errstate(invalid="ignore"):  # of empty frames
        sums = diffraction.sum(axis=(1, 2), dtype=np.float64, where=~(bad | invalid | hot))
    empty |= sums < DARK * np.median(sums[~empty]) if not empty.all() else False
    return Defects(np.asarray(empty), invalid & ~bad, dead & ~bad & ~invalid & ~hot, hot & ~bad)


def _partial_gaps(total: NDArray[np.float64], floor: float) -> NDArray[np.bool_]:
    """Narrow gaps of ``total`` (M, M) between pixels of at least ``floor``."""
    widest, found = int(WIDEST_GAP * len(total)), np.zeros(total.shape, bool)
    for _ in range(2):  # the second time finds where gaps cross
        filled = np.where(found, floor, total)
        found |= np.stack([_between(row, floor, widest) for row in filled])
        found |= np.stack([_between(column, floor, widest) for column in filled.T], axis=1)
    return found


def offset_share(intensity: NDArray[np.float32]) -> tuple[float, float]:
    """Find a lower limit of nearly all values, and its share of the mean.

    Far fields have values near 0, in dim corners and between speckles: a large share is an offset or a background.

    Args:
        intensity: measured intensity of valid pixels, any shape.
    """
    least, mean = float(np.quantile(intensity, RARE)), float(intensity.mean(dtype=np.float64))
    return least, least / mean if mean > 0 else 0.0


def _between(sums: NDArray[np.float64], floor: float, widest: int | None = None) -> NDArray[np.bool_]:
    """Zeros of ``sums`` (M,) whose nearest other values on both sides are at least ``floor``; at most ``widest``."""
    lit = np.flatnonzero(sums)
    if not lit.size:
        return np.zeros(len(sums), bool)
    after = np.searchsorted(lit, np.arange(len(sums)))
    inside = (after > 0) & (after < len(lit)) & (sums == 0)
    left, right = (lit[(after + step).clip(0, len(lit) - 1)] for step in (-1, 0))
    narrow = right - left - 1 <= (len(sums) if widest is None else widest)
    return np.asarray(inside & narrow & (np.minimum(sums[left], sums[right]) >= floor))
