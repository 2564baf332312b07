"""Compare the losses of an arm and the control; lower is better.

Losses differ by factors, so effects are ratios, arm to control: below 1 the arm is better. Statistics of successful
trials alone favour an arm that fails often; `lower_loss_p` can include failures, as infinite losses.

Sources: Hodges and Lehmann, Annals of Mathematical Statistics 34 (1963) 598; Mann and Whitney, ibid. 18 (1947)
50; Lachin, Controlled Clinical Trials 20 (1999) 408 (worst rank).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fnostab.errors import ConfigError, DecisionError
from fnostab.stats.interval import LEVEL, Interval
from fnostab.stats.ranks import interval_depth, smaller_p, sorted_differences

TIE = 1e-9  # relative difference up to which values are equal


@dataclass(frozen=True)
class Effect:
    """Ratio of the arm's values to the control's, or their difference. No interval with too few trials."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class MatchedRatio:
    """Median ratio over the seeds with which both arms succeeded; None if there are no such seeds."""

    ratio: float | None
    n_pairs: int


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    """Convert to a float array of shape (n,); refuse values that are not finite."""
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


def have_ratios(values: Sequence[float]) -> bool:
    """Whether values can be compared by ratios: all are above 0, and their ratios are finite."""
    return all(value > 0 for value in values) and (not values or max(values) / min(values) < math.inf)


def hodges_lehmann_ratio(control: ArrayLike, arm: ArrayLike) -> Effect | None:
    """Hodges-Lehmann ratio of losses: geometric median of all arm-to-control ratios, with Moses' 95 % interval.

    The interval contains the ratios that a two-sided Mann-Whitney test of the logarithms does not reject. It is
    exact without ties and conservative with ties; for two large samples it uses the normal approximation. The
    smallest samples with an interval are 4 against 4.

    Args:
        control: losses of the control's successful trials, shape (n,).
        arm: losses of the arm's successful trials, shape (m,).

    Returns:
        The effect; None if either sample is empty.

    Raises:
        DecisionError: a loss that is not finite, or not above 0.
    """
    shift = _shift(_logs(control), _logs(arm))
    if shift is None:
        return None
    ends = shift.interval
    return Effect(math.exp(shift.value), Interval(math.exp(ends.low), math.exp(ends.high)) if ends else None)


def hodges_lehmann_shift(control: ArrayLike, arm: ArrayLike) -> Effect | None:
    """Hodges-Lehmann shift: median of all differences arm minus control, with Moses' 95 % interval.

    Like `hodges_lehmann_ratio`, but for values of any sign.

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
    """One-sided Mann-Whitney test that the arm's losses are below ``margin`` times the control's, plus ``shift``.

    ``margin`` 1 tests for a lower loss, 1.1 for a loss at most 10 % higher (non-inferiority). Ranks do not change
    under the logarithm, so dividing the arm's losses by ``margin`` shifts their logs by -log(margin). Values within
    a relative difference of 1e-9 are ties: 0.11 / 1.1 equals 0.1.

    Args:
        control: losses of the control's trials, shape (n,); infinity stands for a failure, worse than any loss.
        arm: losses of the arm's trials, shape (m,).
        margin: ratio, above 0.
        shift: difference, in units of the loss.

    Returns:
        The p-value, see `smaller_p`; 1.0 if either sample is empty or all values are equal.

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
    """Dense ranks of values (n,), from 0; values that differ only by rounding share a rank."""
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
    """Geometric median of the arm-to-control ratios over the seeds with which both arms succeeded.

    Args:
        control_by_seed: losses of the control's successful trials.
        arm_by_seed: losses of the arm's successful trials.

    Raises:
        DecisionError: a loss of a shared seed is not finite or not above 0.
    """
    seeds = sorted(control_by_seed.keys() & arm_by_seed.keys())
    if not seeds:
        return MatchedRatio(ratio=None, n_pairs=0)
    log_ratios = _logs([arm_by_seed[seed] for seed in seeds]) - _logs([control_by_seed[seed] for seed in seeds])
    return MatchedRatio(ratio=float(np.exp(np.median(log_ratios))), n_pairs=len(seeds))
