"""Compare the losses of an arm and control (lower is better), and say how robust the comparison is.

Losses differ by factors, so effects are ratios, arm to control, below 1 where the arm is better. Numbers that
use successful trials only flatter the arm that fails; `lower_loss_p` counts failures too, given as infinite.

Sources: Hodges and Lehmann, Annals of Mathematical Statistics 34 (1963) 598; Mann and Whitney, ibid. 18 (1947)
50; Lachin, Controlled Clinical Trials 20 (1999) 408 (worst rank).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fnostab.errors import ConfigError, DecisionError
from fnostab.stats.interval import LEVEL, Interval
from fnostab.stats.ranks import interval_depth, smaller_p, sorted_differences

__all__ = [
    "Effect",
    "MatchedRatio",
    "hodges_lehmann_ratio",
    "hodges_lehmann_shift",
    "lower_loss_p",
    "matched_ratio",
]

TIE = 1e-9  # relative difference within which values are the same


@dataclass(frozen=True)
class Effect:
    """Ratio of the arm's values to control's, or their difference; too few trials have no interval."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class MatchedRatio:
    """Median ratio over the seeds at which both succeeded; None if there is none."""

    ratio: float | None
    n_pairs: int


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    """Convert losses to a float array (n,) of finite values."""
    array = np.asarray(values, dtype=float)
    if array.ndim != 1:
        raise DecisionError(f"expected values of shape (n,), got {array.shape}")
    if not np.isfinite(array).all():
        raise DecisionError(f"value {array[~np.isfinite(array)][0]}: losses of successful trials must be finite")
    return array


def _logs(losses: ArrayLike) -> NDArray[np.float64]:
    array = _finite(losses)
    if (array <= 0).any():
        raise DecisionError(f"loss {array[array <= 0][0]}: a ratio of losses needs losses above 0")
    return np.log(array)


def hodges_lehmann_ratio(control: ArrayLike, arm: ArrayLike) -> Effect | None:
    """Typical ratio of losses: the geometric median of all arm-to-control pairs, with Moses' 95 % interval.

    The interval holds the ratios that a two-sided Mann-Whitney test on logs does not reject. It is exact without
    ties, conservative with them, and by the normal approximation where both samples are large. 4 against 4 is the
    least that has one.

    Args:
        control: losses of control's successful trials, (n,).
        arm: losses of the arm's, (m,).

    Returns:
        None if either is empty.

    Raises:
        DecisionError: a loss that is not finite, or not above 0.
    """
    shift = _shift(_logs(control), _logs(arm))
    if shift is None:
        return None
    ends = shift.interval
    return Effect(math.exp(shift.value), Interval(math.exp(ends.low), math.exp(ends.high)) if ends else None)


def hodges_lehmann_shift(control: ArrayLike, arm: ArrayLike) -> Effect | None:
    """Typical difference of values, arm minus control: the median of all pairs, with Moses' interval.

    As `hodges_lehmann_ratio`, for values of any sign.

    Raises:
        DecisionError: a value that is not finite.
    """
    return _shift(_finite(control), _finite(arm))


def _shift(control: NDArray[np.float64], arm: NDArray[np.float64]) -> Effect | None:
    if control.size == 0 or arm.size == 0:
        return None
    pairs = arm.size * control.size
    depth = interval_depth(arm.size, control.size, LEVEL)
    ranks = [(pairs - 1) // 2, pairs // 2, depth - 1 if depth else 0, pairs - depth if depth else 0]
    below, above, low, high = sorted_differences(arm, control, ranks)
    return Effect((below + above) / 2, Interval(low, high) if depth else None)


def lower_loss_p(control: ArrayLike, arm: ArrayLike, margin: float = 1.0, *, shift: float = 0.0) -> float:
    """One-sided Mann-Whitney test that the arm's losses are below ``margin`` times control's, plus ``shift``.

    Ranks do not change under the logarithm, so a shift of the logs by log(margin) is a division of the losses.
    ``margin`` 1 tests for a lower loss, 1.1 for a loss at most 10 % higher (non-inferiority). Values that come
    within 1e-9 of one another, relative to their size, are ties: 0.11 / 1.1 is 0.1.

    Args:
        control: losses of control's trials, (n,); infinity stands for a failure, worse than any loss.
        arm: losses of the arm's, (m,).
        margin: above 0.
        shift: in the units of the loss.

    Returns:
        The p-value of `smaller_p`; 1.0 if either is empty, or all are equal.

    Raises:
        DecisionError: a loss that is NaN.
        ConfigError: a margin that is not above 0.
    """
    if not 0 < margin < math.inf:
        raise ConfigError(f"margin {margin}: expected a ratio above 0, such as 1.1 for 10 %")
    ours, theirs = _numbers(arm) / margin - shift, _numbers(control)
    places = _places(np.concatenate([ours, theirs]), abs(shift))
    return smaller_p(places[: ours.size], places[ours.size :])


def _numbers(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=float)
    if np.isnan(array).any():
        raise DecisionError("a loss is NaN: losses of successful trials must be numbers")
    return array


def _places(values: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """Places of values (n,) in their order, the same for those that are the same but for rounding."""
    if values.size == 0:
        return values
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    before, after = ordered[:-1], ordered[1:]
    with np.errstate(invalid="ignore"):
        apart = (after - before > TIE * (np.maximum(np.abs(before), np.abs(after)) + scale)) | (
            (np.isinf(before) | np.isinf(after)) & (before != after)
        )
    places = np.empty_like(values)
    places[order] = np.concatenate([[0], np.cumsum(apart)])
    return places


def matched_ratio(control_by_seed: Mapping[int, float], arm_by_seed: Mapping[int, float]) -> MatchedRatio:
    """Geometric median of the arm-to-control ratios over the seeds at which both succeeded.

    Args:
        control_by_seed: losses of control's successful trials.
        arm_by_seed: losses of the arm's.

    Raises:
        DecisionError: a loss, at a seed that both have, that is not finite or not above 0.
    """
    seeds = sorted(control_by_seed.keys() & arm_by_seed.keys())
    if not seeds:
        return MatchedRatio(ratio=None, n_pairs=0)
    log_ratios = _logs([arm_by_seed[seed] for seed in seeds]) - _logs([control_by_seed[seed] for seed in seeds])
    return MatchedRatio(ratio=float(np.exp(np.median(log_ratios))), n_pairs=len(seeds))
