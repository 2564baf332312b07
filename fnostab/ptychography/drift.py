"""Test whether the mean activation grows from block to block, by one slope per seed and an interval over seeds.

Blocks of one network are not independent, so the residuals of its regression line do not give the uncertainty of
the slope. Seeds are independent: the interval is Student's t interval of the mean slope.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

from fnostab.record import names
from fnostab.stats.interval import LEVEL, Interval

SMALL_EFFECT = 0.2  # standard deviations; Cohen, Statistical Power Analysis (1988), section 2.2


class Slope(NamedTuple):
    """Mean slope over seeds.

    Attributes:
        estimate: change from one block to the next.
        interval: 95 % interval; None with one seed.
        n: number of seeds.
    """

    estimate: float
    interval: Interval | None
    n: int


class Growth(StrEnum):
    """Conclusion drawn from the interval of a slope."""

    GROWS = "grows"
    DOES_NOT_GROW = "does not grow"
    CANT_TELL = "can't tell"


def mean_slope(curves: Sequence[Sequence[float]] | NDArray[np.float64]) -> Slope | None:
    """Least-squares slope of each curve over the block index, averaged over curves.

    The 95 % interval assumes that the slopes are normally distributed over seeds.

    Args:
        curves: one curve of finite values per seed, shape (seeds, blocks).

    Returns:
        The mean slope; None without curves or with a single block.
    """
    values = np.asarray(curves, dtype=np.float64)
    if values.ndim < 2 or values.shape[1] < 2:
        return None
    blocks = np.arange(values.shape[1]) - (values.shape[1] - 1) / 2
    slopes = values @ blocks / (blocks @ blocks)
    estimate, n = float(slopes.mean()), slopes.size
    if n == 1:
        return Slope(estimate, None, 1)
    half = float(scipy.stats.t.ppf((1 + LEVEL) / 2, n - 1) * slopes.std(ddof=1)) / math.sqrt(n)
    return Slope(estimate, Interval(estimate - half, estimate + half), n)


def growth(slope: Slope, blocks: int, spread: float) -> Growth:
    """Decide whether a mean grows with depth.

    It does not grow if even the upper end of the interval amounts to less than a small effect, 0.2 ``spread``, from
    the first block to the last. Otherwise it grows if the interval is above 0.

    Args:
        slope: slope of the mean per block.
        blocks: number of blocks.
        spread: typical standard deviation of the outputs.
    """
    if slope.interval is None:
        return Growth.CANT_TELL
    if slope.interval.high * (blocks - 1) <= SMALL_EFFECT * spread:
        return Growth.DOES_NOT_GROW
    return Growth.GROWS if slope.interval.low > 0 else Growth.CANT_TELL


@dataclass(frozen=True)
class Drift:
    """Growth of activations with depth, over seeds.

    Attributes:
        mean: slope of the mean output, per block.
        log_rms: slope of the logarithm of the root mean square output, which grows by a factor of exp(slope) per
            block; None if an output is zero.
        growth: whether the mean grows.
    """

    mean: Slope
    log_rms: Slope | None
    growth: Growth

    def as_dict(self) -> dict[str, Any]:
        """Result as a JSON-serialisable dict."""
        slopes = {"mean_slope": self.mean, "log_rms_slope": self.log_rms}
        return {name: s and s._asdict() for name, s in slopes.items()} | {"mean": str(self.growth)}


def drift(seeds: Sequence[Mapping[str, Mapping[str, float]]]) -> Drift | None:
    """Test over seeds whether the mean output grows from block to block.

    Seeds with missing blocks, whose values were not finite, are left out.

    Args:
        seeds: for each seed and block, in execution order, the quantities of the block's output by name, among them
            ``names.ACTIVATION_MEAN`` and ``names.ACTIVATION_STD``.

    Returns:
        The result; None if no seed has two blocks.
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
