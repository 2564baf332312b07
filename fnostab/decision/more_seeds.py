"""How many more seeds a candidate's lower failure rate most likely takes to be significant."""

from dataclasses import dataclass
from functools import lru_cache

from fnostab.decision.criteria import Tallies
from fnostab.decision.rules import Roles, Rules
from fnostab.stats.design import predictive_power_limit, seeds_for_predictive_power

__all__ = ["MoreSeeds", "more_seeds"]

POWER = 0.8
MOST_SEEDS = 200


@dataclass(frozen=True)
class MoreSeeds:
    """How many further seeds an arm would make `fewer_failures` significant, most likely.

    Attributes:
        extra: smallest number with predictive power of at least 0.8; 0 if it is significant now, None
            if there is none up to 200.
        ceiling: the predictive power that no number of seeds exceeds.
    """

    stage: str
    arm: str
    extra: int | None
    ceiling: float

    def __str__(self) -> str:
        where = f"{self.arm} in Stage {self.stage.upper()}"
        if self.extra == 0:
            return f"{where}: none, its lower failure rate is significant"
        if self.extra is not None:
            seeds = f"{self.extra} more seed{'s' if self.extra > 1 else ''} per arm"
            return f"{where}: {seeds} (predictive power {POWER:g} for fewer failures)"
        if self.ceiling < POWER:
            return f"{where}: no number of seeds, predictive power levels off at {self.ceiling:.2f}"
        return f"{where}: more than {MOST_SEEDS} seeds per arm"


def more_seeds(roles: Roles, tallies: Tallies, rules: Rules) -> list[MoreSeeds]:
    """For every candidate that was run, in each stage: seeds that `fewer_failures` still takes.

    Jeffreys priors on both rates; alpha is that of Holm's first step over the candidates.
    """
    alpha = rules.alpha / max(len(roles.candidates), 1)
    found = []
    for stage, arms in tallies.items():
        control = arms[roles.control]
        for name in roles.candidates:
            if name in arms:
                counts = (control.failed, control.n, arms[name].failed, arms[name].n)
                found.append(MoreSeeds(stage, name, _extra(*counts, alpha), predictive_power_limit(*counts)))
    return found


@lru_cache(maxsize=64)
def _extra(control_failed: int, control_n: int, arm_failed: int, arm_n: int, alpha: float) -> int | None:
    counts = (control_failed, control_n, arm_failed, arm_n)
    return seeds_for_predictive_power(*counts, alpha=alpha, power=POWER, limit=MOST_SEEDS)
