"""Failure rates: a test that the arm's is lower, confidence intervals, and Holm's correction.

A rate is ``failed`` out of ``n`` trials. With ``n = 0`` tests return 1.0 and intervals are None.

Sources: Boschloo, Statistica Neerlandica 24 (1970) 1; Wilson, JASA 22 (1927) 209; Clopper and Pearson,
Biometrika 26 (1934) 404; Newcombe, Statistics in Medicine 17 (1998) 873, method 10; Holm, Scandinavian
Journal of Statistics 6 (1979) 65.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import scipy

from fnostab.errors import DecisionError
from fnostab.stats.boschloo import boschloo_p
from fnostab.stats.checks import check_counts
from fnostab.stats.interval import LEVEL, Interval
from fnostab.stats.rate import Rate

SCIPY_LIMIT = 400  # trials in both arms together; SciPy's time and memory grow with the product of the two


@lru_cache(maxsize=4096)
def fewer_failures_p(control: Rate, arm: Rate) -> float:
    """One-sided Boschloo test that the arm's failure rate is lower than the control's.

    The test is unconditional and exact: the p-value is the maximum over the common failure rate, and never above
    Fisher's. 3/10 against 0/10 gives 0.058. It is computed by SciPy up to 200 trials per arm (0.1 s), and by
    `boschloo_p` above.

    Returns:
        The p-value; 1.0 if no trial failed, all trials failed, or an arm has no trials.
    """
    if control.n == 0 or arm.n == 0 or control.failed + arm.failed in (0, control.n + arm.n):
        return 1.0
    if control.n + arm.n > SCIPY_LIMIT:
        return boschloo_p(control, arm)
    table = [[control.failed, arm.failed], [control.n - control.failed, arm.n - arm.failed]]
    return float(scipy.stats.boschloo_exact(table, alternative="greater").pvalue)


@lru_cache(maxsize=4096)
def wilson(failed: int, n: int) -> Interval | None:
    """Wilson's 95 % score interval for one failure rate; None without trials.

    Raises:
        DecisionError: failures below 0 or above the number of trials.
    """
    check_counts(failed, n)
    if n == 0:
        return None
    low, high = scipy.stats.binomtest(failed, n).proportion_ci(LEVEL, method="wilson")
    return Interval(float(low), float(high))


def clopper_pearson_upper(n: int) -> float | None:
    """Exact one-sided 95 % upper bound of the failure rate when none of n trials failed; None without trials.

    The bound is 1 - 0.05^(1/n), about 3/n.

    Raises:
        DecisionError: a negative number of trials.
    """
    check_counts(0, n)
    if n == 0:
        return None
    return float(scipy.stats.binomtest(0, n, alternative="less").proportion_ci(LEVEL, method="exact").high)


@lru_cache(maxsize=4096)
def newcombe_difference(control: Rate, arm: Rate) -> Interval | None:
    """Newcombe's hybrid-score 95 % interval for the reduction, the control's failure rate minus the arm's.

    Positive values favour the arm. The interval stays within [-1, 1] and has a width even if nothing failed.

    Returns:
        The interval; None if either arm has no trials.
    """
    of_control, of_arm = wilson(control.failed, control.n), wilson(arm.failed, arm.n)
    if of_control is None or of_arm is None:
        return None
    reduction = control.value - arm.value
    return Interval(
        reduction - math.hypot(control.value - of_control.low, of_arm.high - arm.value),
        reduction + math.hypot(of_control.high - control.value, arm.value - of_arm.low),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values by Holm's step-down procedure, for several candidates tested against one control.

    Args:
        p_values: one per candidate, in any order; may be empty.

    Returns:
        Adjusted p-values in the same order. Rejecting those at most alpha keeps the family-wise error within alpha,
        whatever the dependence between the tests.

    Raises:
        DecisionError: a p-value is NaN or outside [0, 1].
    """
    p = np.asarray(p_values, dtype=float)
    if not np.all((p >= 0) & (p <= 1)):
        raise DecisionError(f"p-values {list(p_values)}: each must lie between 0 and 1")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)))
    return [float(value) for value in adjusted]
