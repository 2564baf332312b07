"""Time to failure in optimiser steps: Kaplan-Meier curves.

Trials that did not fail are right-censored at their last step. For a success, give the last scheduled step: a
stagnated trial fails there, and if all others were censored earlier, the curve would fall to 0. A failure detected at a
validation happened at some step since the validation before; its recorded failure step is used.

Sources: Kaplan and Meier, JASA 53 (1958) 457; log-log band: Kalbfleisch and Prentice, The Statistical Analysis
of Failure Time Data, section 1.4.
"""

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from fnostab.errors import DecisionError
from fnostab.stats.interval import LEVEL


@dataclass(frozen=True, eq=False)
class KaplanMeier:
    """Survival curve, right-continuous, starting at step 0 with survival 1; all arrays have the shape (times,).

    Attributes:
        steps: 0, then each distinct step at which a trial failed or was censored, increasing.
        survival: share of trials not failed up to and including the step.
        low: lower end of the pointwise 95 % band.
        high: upper end of the band.
        at_risk: number of trials neither failed nor censored just before the step.
        failures: number of trials that failed at the step.
    """

    steps: NDArray[np.float64]
    survival: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    at_risk: NDArray[np.int64]
    failures: NDArray[np.int64]


def kaplan_meier(steps: ArrayLike, failed: ArrayLike) -> KaplanMeier | None:
    """Kaplan-Meier estimate with Greenwood's variance on the log-log scale.

    The formula of the pointwise 95 % band is undefined where survival is 1 or 0. Before the first failure the band is
    [1, 1], as in R's survfit. Once all trials have failed it runs from 0 to the previous upper end (1 if there is
    none), since survival can't rise again.

    Args:
        steps: failure step of each trial, or its last step if it did not fail, shape (trials,).
        failed: whether each trial failed, shape (trials,).

    Returns:
        The curve; None without trials.

    Raises:
        DecisionError: a step is negative or not finite, or the shapes differ.
    """
    times, events = np.asarray(steps, dtype=float), np.asarray(failed, dtype=bool)
    if times.ndim != 1 or times.shape != events.shape:
        raise DecisionError(f"expected steps and failed of one shape (trials,), got {times.shape} and {events.shape}")
    bad = ~(np.isfinite(times) & (times >= 0))
    if bad.any():
        raise DecisionError(f"step {times[bad][0]}: steps must be finite and at least 0")
    if times.size == 0:
        return None
    curve = scipy.stats.ecdf(scipy.stats.CensoredData(uncensored=times[events], right=times[~events])).sf
    distinct = curve.quantiles
    at_risk = (times[:, None] >= distinct).sum(axis=0)
    failures = ((times[:, None] == distinct) & events[:, None]).sum(axis=0)

    survival = np.concatenate([[1.0], curve.probabilities])
    low, high = np.where(survival == 1, 1.0, 0.0), np.ones_like(survival)
    inside = (survival > 0) & (survival < 1)
    hazard = np.concatenate([[0.0], failures / np.maximum(at_risk * (at_risk - failures), 1)])
    log_survival = np.log(survival[inside])
    deviation = np.sqrt(np.cumsum(hazard)[inside]) / -log_survival  # of log(-log(survival))
    stretch = np.exp(scipy.special.ndtri((1 + LEVEL) / 2) * deviation)
    low[inside], high[inside] = np.exp(log_survival * stretch), np.exp(log_survival / stretch)
    high[survival == 0] = high[survival > 0][-1]
    return KaplanMeier(
        steps=np.concatenate([[0.0], distinct]),
        survival=survival,
        low=low,
        high=high,
        at_risk=np.concatenate([[times.size], at_risk]),
        failures=np.concatenate([[0], failures]),
    )
