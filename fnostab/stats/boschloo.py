"""Boschloo's one-sided test as a region of tables, which power and sequential looks are sums over.

SciPy's `boschloo_exact` gives the p-value of one table. A region at n trials an arm holds (n + 1)^2 tables, and
a search over n needs hundreds of regions. Boschloo's test orders tables by Fisher's p-value, so that its region
at alpha is {Fisher's p <= c} for the largest c that keeps the error within alpha at every common failure rate;
c is found here by bisection, in 1 ms at 20 trials an arm and 25 ms at 200. Both agree on every table.

Source: Boschloo, Statistica Neerlandica 24 (1970) 1.
"""

from bisect import bisect_right
from functools import lru_cache

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from fnostab.stats.rate import Rate

__all__ = ["RATES", "binomial_pmf", "boschloo_p", "rejection_region", "supremum", "tables_up_to"]

RATES = np.sin(np.linspace(0, np.pi / 2, 513)) ** 2  # binomials change evenly along the arcsine of the root
TIE = 1 + 1e-9  # Fisher's p of mirrored tables differs by rounding, other tables' by more


def _log_choose(n: int) -> NDArray[np.float64]:
    """Logarithms of C(n, k) for k = 0..n: (n + 1,)."""
    k = np.arange(n + 1)
    log_factorial = scipy.special.gammaln(k + 1.0)
    return np.asarray(log_factorial[-1] - log_factorial - log_factorial[::-1])


def binomial_pmf(n: int, rate: ArrayLike) -> NDArray[np.float64]:
    """Probability of 0..n failures at each rate: (*rate.shape, n + 1). Ten times as fast as SciPy's."""
    k, p = np.arange(n + 1), np.asarray(rate, dtype=float)[..., None]
    return np.asarray(np.exp(_log_choose(n) + scipy.special.xlogy(k, p) + scipy.special.xlog1py(n - k, -p)))


def supremum(values: NDArray[np.float64]) -> float:
    """Largest value of a smooth function given on RATES, refined by the parabola through its top."""
    top = 1 + int(np.argmax(values[1:-1]))
    before, peak, after = values[top - 1 : top + 2]
    curvature = before - 2 * peak + after
    return float(peak - (after - before) ** 2 / (8 * curvature)) if curvature < 0 else float(peak)


def _fisher_p(control_n: int, arm_n: int) -> NDArray[np.float64]:
    """Fisher's one-sided p-value, that the arm fails less: (control failures, arm failures)."""
    failures = np.add.outer(np.arange(control_n + 1), np.arange(arm_n + 1))
    log_ways = np.add.outer(_log_choose(control_n), _log_choose(arm_n))
    p = np.exp(log_ways - _log_choose(control_n + arm_n)[failures])
    for arm_failed in range(1, arm_n + 1):  # the next more extreme table has one failure moved to control
        p[:-1, arm_failed] += p[1:, arm_failed - 1]
    return p


def boschloo_p(control: Rate, arm: Rate) -> float:
    """P-value of one table, as SciPy's `boschloo_exact` gives it, for thousands of trials.

    0.3 s at 3000 trials an arm, where SciPy would ask Fisher's test for nine million tables.
    """
    fisher = scipy.stats.hypergeom.cdf(arm.failed, control.n + arm.n, control.failed + arm.failed, arm.n)
    extreme = tables_up_to(TIE * float(fisher), control.n, arm.n)
    arm_cdf = np.cumsum(np.pad(binomial_pmf(arm.n, RATES), ((0, 0), (1, 0))), axis=1)  # of fewer than 0..n+1
    return min(1.0, supremum((binomial_pmf(control.n, RATES) * arm_cdf[:, extreme]).sum(axis=1)))


def tables_up_to(critical: float, control_n: int, arm_n: int) -> NDArray[np.int64]:
    """Number of tables with Fisher's p at most ``critical``, for each count of control's failures: (control_n + 1,).

    Those are the tables with the fewest failures of the arm, so that the last is found by bisection. The count
    rises with control's failures, so that every second row is searched between its neighbours, then the rows
    between those.
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
def rejection_region(control_n: int, arm_n: int, alpha: float) -> NDArray[np.bool_]:
    """Tables at which one-sided Boschloo finds the arm's failure rate lower.

    Args:
        control_n: trials of control, at least 1.
        arm_n: trials of the arm, at least 1.
        alpha: level, in (0, 1).

    Returns:
        (control_n + 1, arm_n + 1), read-only, indexed by control's and the arm's failures.
    """
    fisher = _fisher_p(control_n, arm_n)
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
