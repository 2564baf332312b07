"""Losses, lower is better: how an arm's compare with control's, and how far that can be trusted.

Losses differ by factors, so effects are ratios, arm to control, below 1 where the arm is better. Numbers that
use successful trials only flatter the arm that fails; `worst_rank` counts the failures too.

Sources: Hodges and Lehmann, Annals of Mathematical Statistics 34 (1963) 598; Mann and Whitney, ibid. 18 (1947)
50; Lachin, Controlled Clinical Trials 20 (1999) 408 (worst rank); Efron, JASA 82 (1987) 171 (BCa).
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from fnostab.errors import ConfigError, DecisionError
from fnostab.stats.interval import Interval
from fnostab.stats.ranks import interval_depth, smaller_p, sorted_differences

__all__ = [
    "MatchedRatio",
    "RatioEstimate",
    "WorstRank",
    "hodges_lehmann_ratio",
    "lower_loss_p",
    "matched_ratio",
    "median_interval",
    "worst_rank",
]


@dataclass(frozen=True)
class RatioEstimate:
    """Ratio of losses, arm to control; the interval is None where there are too few trials for one."""

    ratio: float
    interval: Interval | None


@dataclass(frozen=True)
class MatchedRatio:
    """Median ratio over the seeds at which both succeeded; None if there is none."""

    ratio: float | None
    n_pairs: int


@dataclass(frozen=True)
class WorstRank:
    """p: one-sided, that the arm is better. superiority: the chance that its trial beats control's, ties half."""

    p: float
    superiority: float | None


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    """As a float array (n,)."""
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


def hodges_lehmann_ratio(control: ArrayLike, arm: ArrayLike, *, level: float = 0.95) -> RatioEstimate | None:
    """Typical ratio of losses: the geometric median of all arm-to-control pairs, with Moses' interval.

    The interval holds the ratios that a two-sided Mann-Whitney test on logs does not reject. It is exact up
    to 100 trials without ties, conservative with them, and by the normal approximation above.

    Args:
        control: losses of control's successful trials, (n,).
        arm: losses of the arm's, (m,).
        level: at least this much is covered; 4 against 4 is the least that has an interval at 95 %.

    Returns:
        None if either is empty.

    Raises:
        DecisionError: a loss that is not finite, or not above 0.
    """
    log_control, log_arm = _logs(control), _logs(arm)
    if log_control.size == 0 or log_arm.size == 0:
        return None
    pairs = log_arm.size * log_control.size
    depth = interval_depth(log_arm.size, log_control.size, level)
    ranks = [(pairs - 1) // 2, pairs // 2, depth - 1 if depth else 0, pairs - depth if depth else 0]
    below, above, low, high = sorted_differences(log_arm, log_control, ranks)
    return RatioEstimate(
        ratio=math.exp((below + above) / 2),
        interval=Interval(math.exp(low), math.exp(high)) if depth else None,
    )


def lower_loss_p(control: ArrayLike, arm: ArrayLike, margin: float = 1.0) -> float:
    """One-sided Mann-Whitney test that the arm's losses are below ``margin`` times control's.

    Ranks do not change under the logarithm, so a shift of the logs by log(margin) is a division of the
    losses. ``margin`` 1 tests for a lower loss, 1.1 for a loss at most 10 % higher (non-inferiority).

    Args:
        control: losses of control's successful trials, (n,).
        arm: losses of the arm's, (m,).
        margin: above 0.

    Returns:
        The p-value, exact given the ties up to 100 trials; 1.0 if either is empty, or all are equal.

    Raises:
        DecisionError: a loss that is not finite.
        ConfigError: a margin that is not above 0.
    """
    if not 0 < margin < math.inf:
        raise ConfigError(f"margin {margin}: expected a ratio above 0, such as 1.1 for 10 %")
    return smaller_p(_finite(arm) / margin, _finite(control))


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


def worst_rank(control: Sequence[tuple[bool, float]], arm: Sequence[tuple[bool, float]]) -> WorstRank:
    """Compare all trials: failures rank below every success, and an earlier failure below a later one.

    Args:
        control: control's trials as (failed, value), the value being the loss of a success or the failure
            step of a failure.
        arm: the arm's.

    Returns:
        p 1.0 and superiority None if either has no trials.

    Raises:
        DecisionError: a value that is not finite.
    """
    trials = [*control, *arm]
    values = _finite([value for _, value in trials])
    keys = [(failed, -value if failed else value) for (failed, _), value in zip(trials, values, strict=True)]
    place = {key: index for index, key in enumerate(sorted(set(keys)))}
    places = np.array([place[key] for key in keys], dtype=float)
    control_places, arm_places = places[: len(control)], places[len(control) :]
    if control_places.size == 0 or arm_places.size == 0:
        return WorstRank(p=1.0, superiority=None)
    m, n = control_places.size, arm_places.size
    worse = float(scipy.stats.rankdata(places)[:m].sum()) - m * (m + 1) / 2  # pairs in which control's trial is
    return WorstRank(p=smaller_p(arm_places, control_places), superiority=worse / (m * n))


def median_interval(values: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Interval | None:
    """Bootstrap interval of the median: BCa, or percentile where BCa's corrections are undefined.

    They are with heavy ties, as in (1, 1, 1, 1, 2). Identical values give an interval of no width. Below about
    six values no interval that stays within the data reaches 95 %, and this one covers less than it says.

    Args:
        values: (n,).
        level: nominal coverage.
        seed: of the 9999 resamples; the same values always give the same interval.

    Returns:
        None for fewer than two values.

    Raises:
        DecisionError: a value that is not finite.
    """
    sample = _finite(values)
    if sample.size < 2:
        return None
    if sample.min() == sample.max():
        return Interval(float(sample[0]), float(sample[0]))
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
            low, high = scipy.stats.bootstrap(
                (sample,), np.median, confidence_level=level, method=method, rng=np.random.default_rng(seed)
            ).confidence_interval
        if np.isfinite([low, high]).all():
            break
    return Interval(float(low), float(high))
