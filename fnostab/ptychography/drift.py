"""Does the mean of the activations grow from block to block? The slope of each seed, and an interval over seeds.

Blocks of one network depend on each other, so that the residuals of its line say little about how sure its
slope is. Seeds are independent: the interval is Student's, of the mean of their slopes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

from fnostab.errors import DecisionError
from fnostab.record import names
from fnostab.stats.interval import LEVEL, Interval

__all__ = ["Drift", "Growth", "Slope", "drift", "growth", "mean_slope"]

SMALL_EFFECT = 0.2  # standard deviations; Cohen, Statistical Power Analysis (1988), section 2.2


class Slope(NamedTuple):
    """Mean of the seeds' slopes.

    Attributes:
        estimate: change from one block to the next.
        interval: for it; None with one seed.
    """

    estimate: float
    interval: Interval | None
    n: int


class Growth(StrEnum):
    """Conclusion from the interval of a slope."""

    GROWS = "grows"
    DOES_NOT_GROW = "does not grow"
    CANT_TELL = "can't tell"


def mean_slope(curves: Sequence[Sequence[float]] | NDArray[np.float64]) -> Slope | None:
    """Least-squares slope of each curve over the block's number, averaged over the curves.

    Args:
        curves: one for each seed, (seeds, blocks). The 95 % interval takes slopes of seeds as normally distributed.

    Returns:
        None without curves, or of a single block.

    Raises:
        DecisionError: a value is not finite, or curves differ in length.
    """
    lengths = {len(curve) for curve in curves}
    if len(lengths) > 1:
        raise DecisionError(f"curves of {' and '.join(map(str, sorted(lengths)))} blocks have no common slope")
    if not lengths or lengths <= {0, 1}:
        return None
    values = np.asarray(curves, dtype=np.float64)
    if not np.isfinite(values).all():
        raise DecisionError("a curve holds a value that is not finite: leave its seed out")
    blocks = np.arange(values.shape[1]) - (values.shape[1] - 1) / 2
    slopes = values @ blocks / (blocks @ blocks)
    estimate, n = float(slopes.mean()), slopes.size
    if n == 1:
        return Slope(estimate, None, 1)
    half = float(scipy.stats.t.ppf((1 + LEVEL) / 2, n - 1) * slopes.std(ddof=1)) / math.sqrt(n)
    return Slope(estimate, Interval(estimate - half, estimate + half), n)


def growth(slope: Slope, blocks: int, spread: float) -> Growth:
    """Whether a mean grows with depth over so many blocks.

    It does not if, even at the interval's upper end, it rises by less than a small effect, 0.2 of the typical standard
    deviation ``spread``, from the first block to the last. It grows if the interval lies above 0 and that is not so.
    """
    if slope.interval is None:
        return Growth.CANT_TELL
    if slope.interval.high * (blocks - 1) <= SMALL_EFFECT * spread:
        return Growth.DOES_NOT_GROW
    return Growth.GROWS if slope.interval.low > 0 else Growth.CANT_TELL


@dataclass(frozen=True)
class Drift:
    """Whether the mean grows with depth, over seeds.

    Attributes:
        mean: slope of the mean of the outputs, per block.
        log_rms: slope of the logarithm of their root mean square: it grows by a factor of exp(slope) per block.
    """

    mean: Slope
    log_rms: Slope | None
    growth: Growth

    def as_dict(self) -> dict[str, Any]:
        """The result as a dict, JSON-ready."""
        slopes = {"mean_slope": self.mean, "log_rms_slope": self.log_rms}
        return {name: s and s._asdict() for name, s in slopes.items()} | {"mean": str(self.growth)}


def drift(seeds: Sequence[Mapping[str, Mapping[str, float]]]) -> Drift | None:
    """Whether the mean of the outputs grows from block to block, judged over seeds.

    A seed that lacks a block of the others, whose numbers were not finite, is left out.

    Args:
        seeds: for each one, by block in the order in which they run, the quantities of its output by name,
            among them ``names.ACTIVATION_MEAN`` and ``names.ACTIVATION_STD``.

    Returns:
        None if no seed has two blocks.
    """
    most = max((len(states) for states in seeds), default=0)
    needed = {names.ACTIVATION_MEAN, names.ACTIVATION_STD}
    whole = [
        list(states.values())
        for states in seeds
        if len(states) == most and all(needed <= state.keys() for state in states.values())
    ]
    means = np.array([[state[names.ACTIVATION_MEAN] for state in states] for states in whole])
    stds = np.array([[state[names.ACTIVATION_STD] for state in states] for states in whole])
    slope = mean_slope(means)
    if slope is None:
        return None
    rms = np.hypot(means, stds)
    log_rms = mean_slope(np.log(rms)) if (rms > 0).all() else None
    return Drift(slope, log_rms, growth(slope, most, float(np.median(stds))))
