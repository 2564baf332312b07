"""Group-sequential tests of failure rates: interim looks without a higher type I error.

Every look uses the same alpha, as in Pocock's design (Biometrika 64 (1977) 191). Unlike there, it is computed for
the counts themselves, not for their normal limit: the probability that one-sided Boschloo's test rejects at any look
is summed over all paths of failure counts and maximised over the common failure rate. Stopping for futility, when
predictive power is below 10 %, only lowers that error and needs no correction; it costs power, which is reported.
This module is for failure rates, not for losses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fnostab.errors import ConfigError
from fnostab.stats.boschloo import RATES, binomial_pmf, rejection_region, supremum
from fnostab.stats.checks import check_open_unit, check_rate
from fnostab.stats.design import predictive_power
from fnostab.stats.rate import Rate

FUTILE_POWER = 0.1  # a study is futile if its predictive power at the last look is below this
MOST_SEEDS = 200  # per arm; with more, the sum over all paths takes minutes
TABLES_AT_ONCE = 10_000  # times the number of rates: 40 MB per array
STEPS = 1000  # the alpha of each look is a multiple of overall / STEPS


@dataclass(frozen=True)
class SequentialDesign:
    """Type I error, power and expected size of a sequential design.

    Attributes:
        error: type I error over all looks, maximised over the common failure rate.
        error_rate: common failure rate at which the error is largest.
        power: probability of a rejection at any look.
        rejected_at_look: probability that the first rejection happens at each look; sums to ``power``.
        futile_at_look: probability that the study stops for futility at each look.
        expected_seeds: mean number of seeds per arm until the study stops.
    """

    error: float
    error_rate: float
    power: float
    rejected_at_look: tuple[float, ...]
    futile_at_look: tuple[float, ...]
    expected_seeds: float


def _check_looks(looks: Sequence[int]) -> None:
    if not looks or looks[0] < 1 or any(later <= earlier for earlier, later in pairwise(looks)):
        raise ConfigError(f"looks {list(looks)}: expected rising numbers of seeds per arm, such as 10, 20")
    if looks[-1] > MOST_SEEDS:
        raise ConfigError(
            f"looks {list(looks)}: the exact error is computed up to {MOST_SEEDS} seeds per arm: look earlier, or once"
        )


def _transition(before: int, after: int, rate: NDArray[np.float64]) -> NDArray[np.float64]:
    """Transition probabilities between failure counts at two looks, shape (rates, after + 1, before + 1)."""
    further = np.subtract.outer(np.arange(after + 1), np.arange(before + 1))
    possible = (further >= 0) & (further <= after - before)
    return np.where(possible, binomial_pmf(after - before, rate)[:, np.where(possible, further, 0)], 0.0)


@lru_cache(maxsize=32)
def _futile(n: int, last: int, alpha: float) -> NDArray[np.bool_]:
    """Tables after n seeds per arm at which the study is futile, indexed by (control failures, arm failures)."""
    counts = range(n + 1)
    powers = [
        [predictive_power(Rate(control, n), Rate(arm, n), last - n, alpha) for arm in counts] for control in counts
    ]
    return np.asarray(powers) < FUTILE_POWER


def _stops(
    looks: Sequence[int], alpha: ArrayLike, control_rate: ArrayLike, arm_rate: ArrayLike, *, futility: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probabilities of the first rejection and of a futility stop at each look, (rates, looks) each."""
    alphas = [float(each) for each in np.broadcast_to(alpha, len(looks))]
    control_rate, arm_rate = np.atleast_1d(control_rate).astype(float), np.atleast_1d(arm_rate).astype(float)
    going_on = np.ones((control_rate.size, 1, 1))  # P(not yet stopped), by (rate, control failures, arm failures)
    rejections, futile = [], []
    for before, n, level in zip([0, *looks], looks, alphas, strict=False):
        control, arm = _transition(before, n, control_rate), _transition(before, n, arm_rate)
        reached = control @ going_on @ arm.swapaxes(1, 2)
        region = rejection_region(level, control_n=n, arm_n=n)
        given_up = _futile(n, looks[-1], alphas[-1]) & ~region if futility and n < looks[-1] else np.zeros_like(region)
        rejections.append(reached[:, region].sum(axis=1))
        futile.append(reached[:, given_up].sum(axis=1))
        going_on = np.where(region | given_up, 0.0, reached)
    return np.stack(rejections, axis=1), np.stack(futile, axis=1)


def _errors(looks: Sequence[int], alpha: ArrayLike) -> NDArray[np.float64]:
    """Type I error over all looks at each of `RATES`."""
    shares = np.array_split(RATES, max(1, looks[-1] ** 2 // TABLES_AT_ONCE))  # memory grows as seeds squared
    return np.concatenate([_stops(looks, alpha, rates, rates, futility=False)[0].sum(axis=1) for rates in shares])


def sequential_alpha(looks: Sequence[int], overall: float = 0.05) -> float:
    """Alpha of each look that keeps the type I error over all looks within ``overall``.

    Args:
        looks: seeds per arm at each look, increasing; the last is the planned size.
        overall: type I error allowed over all looks, in (0, 1).

    Returns:
        The largest multiple of overall / 1000 that does so. Looks after 10 and 20 seeds give 0.03115.

    Raises:
        ConfigError: the looks are not increasing, start below 1 or exceed 200, or overall is outside (0, 1).
    """
    _check_looks(looks)
    check_open_unit("overall", overall)
    kept, exceeded = STEPS // len(looks), STEPS + 1  # Bonferroni's level always does
    while exceeded - kept > 1:
        middle = (kept + exceeded) // 2
        if supremum(_errors(looks, overall * middle / STEPS)) <= overall:
            kept = middle
        else:
            exceeded = middle
    return overall * kept / STEPS


def sequential_error_and_power(
    looks: Sequence[int],
    alpha: float | Sequence[float],
    control_rate: float,
    arm_rate: float,
    *,
    futility: bool = False,
) -> SequentialDesign:
    """Type I error, power and expected size of a study that stops at the first rejection.

    Args:
        looks: seeds per arm at each look, increasing.
        alpha: level of one-sided Boschloo's test at every look, as from `sequential_alpha`, or one per look.
        control_rate: failure rate of the control, for power and size.
        arm_rate: failure rate of the arm.
        futility: stop when predictive power is below `FUTILE_POWER`. The error is computed without this rule, so it
            also holds if the study continues nevertheless.

    Raises:
        ConfigError: the looks are not increasing, start below 1 or exceed 200, alpha is outside (0, 1), or a rate
            is outside [0, 1].
    """
    _check_looks(looks)
    for level in np.atleast_1d(alpha):
        check_open_unit("alpha", float(level))
    check_rate("control_rate", control_rate)
    check_rate("arm_rate", arm_rate)
    errors = _errors(looks, alpha)
    rejected, futile = (each[0] for each in _stops(looks, alpha, control_rate, arm_rate, futility=futility))
    power, stopped = float(rejected.sum()), rejected + futile
    return SequentialDesign(
        error=supremum(errors),
        error_rate=float(RATES[np.argmax(errors)]),
        power=power,
        rejected_at_look=tuple(float(share) for share in rejected),
        futile_at_look=tuple(float(share) for share in futile),
        expected_seeds=float(stopped @ np.asarray(looks) + (1 - stopped.sum()) * looks[-1]),
    )
