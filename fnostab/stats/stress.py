"""Stress studies: how far a setting, the knob, can be raised until training fails, and which arm tolerates more.

The only assumption is that the failure rate does not decrease as the knob is turned up. Rates are ``failed`` out of
``n`` trials at each value of the knob.

Sources: Ayer et al., Annals of Mathematical Statistics 26 (1955) 641 (isotonic rates); Maurer, Hothorn and Lehmacher,
in Vollmar (ed.), Biometrie in der chemisch-pharmazeutischen Industrie 6 (1995) 3 (tests in a fixed order); Fisher, The
Design of Experiments (1935), section 21 (signs of paired differences).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from fnostab.errors import DecisionError
from fnostab.stats.checks import check_counts
from fnostab.stats.interval import LEVEL

Floats = NDArray[Any]


@dataclass(frozen=True)
class Crossing:
    """Value of the knob at which the failure rate reaches one half.

    Attributes:
        estimate: None if all rates are on the same side of one half.
        beyond: whether the last rate is still below one half.
        trains_at: last value at which significantly less than half fail; None if there is none.
        fails_at: first value at which significantly more than half fail; None if there is none.
    """

    estimate: float | None
    beyond: bool
    trains_at: float | None
    fails_at: float | None


def crossing(values: Sequence[float], failed: Sequence[int], n: Sequence[int]) -> Crossing:
    """Estimate the value at which the failure rate reaches one half, with an exact 95 % interval.

    The estimate interpolates isotonic rates linearly in the logarithm of the knob. The interval's ends are values of
    the knob. From the first value on, a one-sided binomial test at 2.5 % asks whether the rate is below one half;
    ``trains_at`` is the last value before a test is not significant. The order is fixed beforehand, so the tests need
    no correction. ``fails_at`` is found in the same way from the last value backwards. A significant test needs at
    least 6 trials at a value.

    Args:
        values: values of the knob, above 0, from easy to hard: all increasing or all decreasing.
        failed: number of failed trials at each value.
        n: number of trials at each value; values with 0 trials are skipped.

    Raises:
        DecisionError: there are no trials, the values are not in order, or a count is impossible.
    """
    for k, m in zip(failed, n, strict=True):
        check_counts(k, m)
    rows = [(x, k, m) for x, k, m in zip(values, failed, n, strict=True) if m]
    steps = {np.sign(after[0] - before[0]) for before, after in pairwise(rows)}
    if not rows or len(steps) > 1 or 0 in steps or min(x for x, _, _ in rows) <= 0:
        raise DecisionError(f"values {list(values)} with {list(n)} trials: expected trials at rising values above 0")
    x, failures, trials = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    rates = scipy.optimize.isotonic_regression(failures / trials, weights=trials).x
    alpha = (1 - LEVEL) / 2
    n_below = _leading(scipy.stats.binom.cdf(failures, trials, 0.5) <= alpha)
    n_above = _leading((scipy.stats.binom.sf(failures - 1, trials, 0.5) <= alpha)[::-1])
    return Crossing(
        estimate=_interpolated(np.log(x), rates),
        beyond=bool(rates[-1] < 0.5),
        trains_at=float(x[n_below - 1]) if n_below else None,
        fails_at=float(x[-n_above]) if n_above else None,
    )


def paired_fewer_failures_p(differences: Sequence[int]) -> float:
    """One-sided test that the arm fails less often than the control, over all values of the knob together.

    Fisher's exact sign-flip test by seed: if both arms fail equally often, each seed's difference is as likely to
    have the opposite sign. Trials of one seed at several values start from the same weights and may be dependent. At
    least 5 seeds are needed to reach 0.05.

    Args:
        differences: for each seed, failed trials of the control minus those of the arm, over the values at which both
            have an outcome.

    Returns:
        The p-value; 1.0 without seeds or differences.
    """
    sizes = [abs(int(d)) for d in differences]
    distribution = np.ones(1)  # of the sum over seeds, from its smallest value up
    for size in sizes:
        signs = np.zeros(2 * size + 1)
        signs[0] += 0.5
        signs[-1] += 0.5
        distribution = np.convolve(distribution, signs)
    at_least = int(sum(differences)) + sum(sizes)
    return float(min(1.0, distribution[at_least:].sum()))


def _interpolated(log_x: Floats, rates: Floats) -> float | None:
    """Value at which increasing ``rates`` reach one half; None if that is outside the range of values."""
    if rates[0] > 0.5 or rates[-1] < 0.5:
        return None
    if rates[0] == 0.5:
        return math.exp(log_x[0])
    after = int(np.argmax(rates >= 0.5))
    share = (0.5 - rates[after - 1]) / (rates[after] - rates[after - 1])
    return math.exp(log_x[after - 1] + share * (log_x[after] - log_x[after - 1]))


def _leading(holds: Floats) -> int:
    """Number of true values before the first false one."""
    return int(np.argmin(np.append(holds, False)))
