"""Number of seeds that a comparison needs, before a study starts and after some seeds have finished.

For failure rates, power is exact: both arms' binomial distributions are summed over the rejection region of the
test that decides, one-sided Boschloo. Power then rises with n in a saw-tooth. The search returns the first n that
reaches the target; power at the next n may be slightly below it.

With several candidates alpha is divided by their number. This is the first step of Holm's procedure, hence the
power of a candidate when no other candidate has an effect; when others do, its power is higher.

Sources: Boschloo, Statistica Neerlandica 24 (1970) 1; Noether, JASA 82 (1987) 645; Spiegelhalter, Freedman and
Blackburn, Controlled Clinical Trials 7 (1986) 8 (predictive power).
"""

import math

import numpy as np
import scipy
from numpy.typing import NDArray

from fnostab.errors import ConfigError
from fnostab.stats.boschloo import binomial_pmf, rejection_region
from fnostab.stats.checks import check_open_unit, check_rate
from fnostab.stats.rate import Rate

EXACT_LIMIT = 400  # trials in both arms together; takes 25 ms
LEAST_TRIALS = 3  # of an arm; no decision compares fewer
JEFFREYS = 0.5  # both parameters of the Beta prior of a failure rate


def _level(alpha: float, candidates: int) -> float:
    """Significance level of Holm's first step."""
    check_open_unit("alpha", alpha)
    if candidates < 1:
        raise ConfigError(f"candidates {candidates}: expected at least 1")
    return alpha / candidates


def boschloo_power(control_rate: float, arm_rate: float, n: int, alpha: float = 0.05) -> float:
    """Exact probability that one-sided Boschloo's test finds the arm's failure rate lower, with n seeds per arm.

    Raises:
        ConfigError: a rate outside [0, 1], alpha outside (0, 1), or n below 1.
    """
    check_rate("control_rate", control_rate)
    check_rate("arm_rate", arm_rate)
    check_open_unit("alpha", alpha)
    if n < 1:
        raise ConfigError(f"n {n}: expected at least 1 seed per arm")
    region = rejection_region(alpha, control_n=n, arm_n=n)
    return float(binomial_pmf(n, control_rate) @ region @ binomial_pmf(n, arm_rate))


def seeds_for_rates(
    control_rate: float,
    arm_rate: float,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
    candidates: int = 1,
    limit: int = 200,
) -> int | None:
    """Smallest number of seeds per arm, at least `LEAST_TRIALS`, at which `boschloo_power` reaches ``power``.

    A failure rate of 0.3 against 0 needs 18 seeds with one candidate and 21 with two. The search takes up to 2 s
    for 200 seeds.

    Returns:
        The number; None if ``limit`` seeds are not enough or the arm is not better.

    Raises:
        ConfigError: a rate outside [0, 1], alpha or power outside (0, 1), or no candidate.
    """
    check_open_unit("power", power)
    level = _level(alpha, candidates)
    if arm_rate >= control_rate:
        check_rate("control_rate", control_rate)
        check_rate("arm_rate", arm_rate)
        return None
    for n in range(LEAST_TRIALS, limit + 1):
        if boschloo_power(control_rate, arm_rate, n, level) >= power:
            return n
    return None


def seeds_for_loss_ratio(
    log_sd: float, ratio: float, *, margin: float = 1.0, power: float = 0.8, alpha: float = 0.05, candidates: int = 1
) -> int | None:
    """Successful trials per arm needed by the one-sided Mann-Whitney test of losses, by Noether's formula.

    n = (z_alpha + z_power)^2 / (6 (q - 1/2)^2), where q is the probability that the arm's loss is below ``margin``
    times the control's. For log-normal losses q = Phi(log(margin / ratio) / (sqrt(2) log_sd)). For large effects
    (q above 0.75) the result is a seed or two too high. It is never below the smallest n at which the exact test
    can reach alpha. Only successful trials count: at a failure rate f, plan n / (1 - f) seeds.

    Args:
        log_sd: standard deviation of the natural log of the loss over seeds, equal in both arms, above 0.
        ratio: true ratio of losses, arm to control, above 0.
        margin: ratio that the arm is to be shown to be below; 1.1 for non-inferiority within 10 %.
        power: desired probability of a significant result.
        alpha: one-sided significance level.
        candidates: number of arms compared with the control.

    Returns:
        The number; None if ``ratio`` is not below ``margin``, or by too little beside ``log_sd``.

    Raises:
        ConfigError: alpha or power outside (0, 1), no candidate, or another number not above 0.
    """
    check_open_unit("power", power)
    level = _level(alpha, candidates)
    for name, value in (("log_sd", log_sd), ("ratio", ratio), ("margin", margin)):
        if not 0 < value < math.inf:
            raise ConfigError(f"{name} {value}: expected a finite number above 0")
    better = float(scipy.special.ndtr((math.log(margin) - math.log(ratio)) / (math.sqrt(2) * log_sd)))
    if better <= 0.5:
        return None
    quantiles = float(scipy.special.ndtri(1 - level) + scipy.special.ndtri(power))
    noether = max(0.0, quantiles) ** 2 / (6 * (better - 0.5) ** 2)
    attainable = next(n for n in range(LEAST_TRIALS, 1000) if math.comb(2 * n, n) * level >= 1)
    return max(math.ceil(noether), attainable)


def future_failures(rate: Rate, extra: int) -> NDArray[np.float64]:
    """Beta-binomial probability of 0..extra further failures, shape (extra + 1,)."""
    alpha, beta = rate.failed + JEFFREYS, rate.n - rate.failed + JEFFREYS
    return np.asarray(scipy.stats.betabinom.pmf(np.arange(extra + 1), extra, alpha, beta))


def significant(seen_control: Rate, seen_arm: Rate, extra: int, alpha: float) -> NDArray[np.bool_]:
    """Whether each table with 0..extra further failures is significant: (extra + 1, extra + 1), control first."""
    control_n, arm_n = seen_control.n + extra, seen_arm.n + extra
    if control_n + arm_n <= EXACT_LIMIT:
        region = rejection_region(alpha, control_n=control_n, arm_n=arm_n)
        rows = slice(seen_control.failed, seen_control.failed + extra + 1)
        return region[rows, seen_arm.failed : seen_arm.failed + extra + 1]
    control = (seen_control.failed + np.arange(extra + 1))[:, None]
    arm = (seen_arm.failed + np.arange(extra + 1))[None, :]
    pooled = (control + arm) / (control_n + arm_n)
    standard_error = np.sqrt(pooled * (1 - pooled) * (1 / control_n + 1 / arm_n))
    reduction = control / control_n - arm / arm_n
    return np.asarray((reduction > 0) & (reduction >= scipy.special.ndtri(1 - alpha) * standard_error))


def predictive_power(control: Rate, arm: Rate, extra: int, alpha: float = 0.05) -> float:
    """Probability that one-sided Boschloo's test on all data is significant after ``extra`` more seeds per arm.

    Both failure rates have Jeffreys' prior, updated with the counts so far. With several candidates, pass the alpha
    that Holm's procedure leaves for this one. Above 400 trials in both arms together a pooled z-test replaces
    Boschloo's.

    Returns:
        The probability; if ``extra`` is 0, whether the result is significant now, as 0 or 1.

    Raises:
        ConfigError: alpha outside (0, 1), or a negative ``extra``.
    """
    check_open_unit("alpha", alpha)
    if extra < 0:
        raise ConfigError(f"extra {extra}: expected at least 0 more seeds per arm")
    if control.n + extra == 0 or arm.n + extra == 0:
        return 0.0
    reachable = significant(control, arm, extra, alpha)
    return float(np.clip(future_failures(control, extra) @ reachable @ future_failures(arm, extra), 0, 1))
