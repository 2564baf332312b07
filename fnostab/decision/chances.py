"""Forecast how many more seeds are likely to give an answer, if any number is."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fnostab.decision.words import percent
from fnostab.record.plurals import counted
from fnostab.stats.design import future_failures, significant
from fnostab.stats.rate import Rate

POWER = 0.8
MOST_SEEDS = 100  # further seeds for each arm
STEPS = (*range(1, 21), *range(25, MOST_SEEDS + 1, 5))
Z = 1.959963984540054  # two-sided 95 %


@dataclass(frozen=True)
class MoreSeeds:
    """Number of further seeds per arm that gives an answer with a probability of at least 0.8.

    Attributes:
        extra: smallest such number; None if there is none up to `MOST_SEEDS`.
        chance: probability of an answer with that many seeds, or the highest probability if there is none.
        is_worth_it: whether such a number exists that at most doubles the seeds.
    """

    extra: int | None
    chance: float
    is_worth_it: bool = False

    def __str__(self) -> str:
        if self.extra is not None:
            many = counted(self.extra, "more seed")
            return f"{many} per arm would probably decide ({percent(self.chance)} chance)"
        best = min(self.chance, POWER - 0.01)  # not rounded to the chance that would be enough
        return f"more seeds may not be enough: {percent(best)} chance at best"


@lru_cache(maxsize=256)
def more_seeds(control: Rate, arm: Rate, *, alpha: float, smallest_effect: float) -> MoreSeeds:
    """Forecast whether an arm helps, harms or does not help after more seeds, from failure rates alone.

    Uses Jeffreys priors on both rates, updated with the observed counts. ``alpha`` is the level of Holm's first step
    at the next look.
    """
    best = 0.0
    for extra in STEPS:
        chance = _chance(control, arm, extra, alpha, smallest_effect)
        if chance >= POWER:
            return MoreSeeds(extra, chance, extra <= max(arm.n, control.n))
        best = max(best, chance)
    return MoreSeeds(None, best)


def _chance(control: Rate, arm: Rate, extra: int, alpha: float, smallest_effect: float) -> float:
    helps = significant(control, arm, extra, alpha)
    harms = significant(arm, control, extra, alpha).T
    answered = helps | harms | _no_help(control, arm, extra, smallest_effect)
    return float(np.clip(future_failures(control, extra) @ answered @ future_failures(arm, extra), 0, 1))


def _no_help(control: Rate, arm: Rate, extra: int, smallest_effect: float) -> NDArray[np.bool_]:
    """Mask of Newcombe intervals below ``smallest_effect``, (extra + 1, extra + 1), by the failures of each arm."""
    more = np.arange(extra + 1)
    theirs, _, theirs_high = _wilson(control.failed + more, control.n + extra)
    ours, ours_low, _ = _wilson(arm.failed + more, arm.n + extra)
    up = np.hypot((theirs_high - theirs)[:, None], (ours - ours_low)[None, :])
    upper = theirs[:, None] - ours[None, :] + up
    return np.asarray((upper < smallest_effect) & (theirs[:, None] >= smallest_effect))


def _wilson(failed: NDArray[np.int64], n: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Failure rates with the bounds of their Wilson intervals."""
    rate = failed / n
    centre = (rate + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * np.sqrt(rate * (1 - rate) / n + Z**2 / (4 * n**2))
    return rate, centre - half, centre + half
