"""Rejection regions of Boschloo's one-sided test, from which power and sequential errors are summed.

SciPy's `boschloo_exact` gives the p-value of one table. With n trials per arm there are (n + 1)^2 tables, and a
search over n needs hundreds of regions. Boschloo's test orders tables by Fisher's p-value, so its rejection region
at level alpha is {Fisher's p <= c}, with the largest c that keeps the type I error within alpha at every common
failure rate. c is found by bisection, in 1 ms for 20 trials per arm and 25 ms for 200. The region agrees with
SciPy's p-value on every table.

Source: Boschloo, Statistica Neerlandica 24 (1970) 1.
"""

from bisect import bisect_right
from functools import lru_cache

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from fnostab.stats.rate import Rate

RATES = np.sin(np.linspace(0, np.pi / 2, 513)) ** 2  # evenly spaced in arcsin(sqrt(rate)), as binomials vary
TIE = 1 + 1e-9  # Fisher's p of mirrored tables differs only by rounding; that of other tables by more


def _log_choose(n: int) -> NDArray[np.float64]:
    """Logarithms of the binomial coefficients C(n, k) for k = 0..n, shape (n + 1,)."""
    k = np.arange(n + 1)
    log_factorial = scipy.special.gammaln(k + 1.0)
    return np.asarray(log_factorial[-1] - log_factorial - log_factorial[::-1])


def binomial_pmf(n: int, rate: ArrayLike) -> NDArray[np.float64]:
    """Probability of 0..n failures at each rate, shape (*rate.shape, n + 1). Ten times as fast as SciPy's."""
    k, p = np.arange(n + 1), np.asarray(rate, dtype=float)[..., None]
    return np.asarray(np.exp(_log_choose(n) + scipy.special.xlogy(k, p) + scipy.special.xlog1py(n - k, -p)))


def supremum(values: NDArray[np.float64]) -> float:
    """Maximum of a smooth function sampled at `RATES`, refined by a parabola through its highest points."""
    top = 1 + int(np.argmax(values[1:-1]))
    before, peak, after = values[top - 1 : top + 2]
    curvature = before - 2 * peak + after
    return float(peak - (after - before) ** 2 / (8 * curvature)) if curvature < 0 else float(peak)


def _fisher_p(*, control_n: int, arm_n: int) -> NDArray[np.float64]:
    """Fisher's one-sided p-values (arm fails less often), indexed by (control failures, arm failures)."""
    failures = np.add.outer(np.arange(control_n + 1), np.arange(arm_n + 1))
    log_ways = np.add.outer(_log_choose(control_n), _log_choose(arm_n))
    p = np.exp(log_ways - _log_choose(control_n + arm_n)[failures])
    for arm_failed in range(1, arm_n + 1):  # the next more extreme table has one failure moved to control
        p[:-1, arm_failed] += p[1:, arm_failed - 1]
    return p


def boschloo_p(control: Rate, arm: Rate) -> float:
    """P-value of one table; equals SciPy's `boschloo_exact`, but is fast for thousands of trials.

    It takes 0.3 s with 3000 trials per arm, where SciPy would compute Fisher's test for nine million tables.
    """
    fisher = scipy.stats.hypergeom.cdf(arm.failed, control.n + arm.n, control.failed + arm.failed, arm.n)
    extreme = tables_up_to(TIE * float(fisher), control_n=control.n, arm_n=arm.n)
    arm_cdf = np.cumsum(np.pad(binomial_pmf(arm.n, RATES), ((0, 0), (1, 0))), axis=1)  # of fewer than 0..n+1
    return min(1.0, supremum((binomial_pmf(control.n, RATES) * arm_cdf[:, extreme]).sum(axis=1)))


def tables_up_to(critical: float, *, control_n: int, arm_n: int) -> NDArray[np.int64]:
    """Number of tables with Fisher's p at most ``critical``, per number of control failures: (control_n + 1,).

    In each row these are the tables with the fewest arm failures, so the last one is found by bisection. The
    number rises from row to row, so each row is searched only between the results of its neighbours: first with a
    large stride, then halving it.
    """
    counts = np.zeros(control_n + 1, dtype=np.int64)
    stride = 1 << control_n.bit_length()
    while stride:
        rows = np.arange(stride - 1, control_n + 1, 2 * stride)
        before, after = rows - stride, rows + stride
        low = np.where(before >= 0, counts[np.maximum(before, 0)], 0)  # known to be this many
        high = np.where(after <= control_n, counts[np.minimum(after, control_n)], arm_n + 1)  # and no more
        while (searched := np.flatnonzero(low < high)).size:
            middle = (low[searched] + high[searched] + 1) // 2
            p = scipy.stats.hypergeom.cdf(middle - 1, control_n + arm_n, rows[searched] + middle - 1, arm_n)
            low[searched] = np.where(p <= critical, middle, low[searched])
            high[searched] = np.where(p > critical, middle - 1, high[searched])
        counts[rows] = low
        stride //= 2
    return counts


@lru_cache(maxsize=1024)
def rejection_region(alpha: float, *, control_n: int, arm_n: int) -> NDArray[np.bool_]:
    """Tables for which one-sided Boschloo's test finds the arm's failure rate lower.

    Args:
        alpha: significance level, in (0, 1).
        control_n: number of control trials, at least 1.
        arm_n: number of trials of the arm, at least 1.

    Returns:
        Mask of shape (control_n + 1, arm_n + 1), read-only, indexed by (control failures, arm failures).
    """
    fisher = _fisher_p(control_n=control_n, arm_n=arm_n)
    criticals = np.unique(fisher[fisher < 1 / TIE]) * TIE
    control_pmf = binomial_pmf(control_n, RATES)
    arm_cdf = np.cumsum(np.pad(binomial_pmf(arm_n, RATES), ((0, 0), (1, 0))), axis=1)  # of fewer than 0..n+1

    def error(index: int) -> float:
        rejected_below = (fisher <= criticals[index]).sum(axis=1)  # Fisher's p rises with the arm's failures
        return supremum((control_pmf * arm_cdf[:, rejected_below]).sum(axis=1))

    kept = bisect_right(range(criticals.size), alpha, key=error)
    region = fisher <= (criticals[kept - 1] if kept else -1.0)
    region.flags.writeable = False
    return np.asarray(region)
