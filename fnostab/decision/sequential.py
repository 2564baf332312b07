"""Planned interim looks at a study: find the arms that are decided and those not worth more seeds.

Every look tests `fewer_failures` with Holm's correction, at a level that keeps the error over all looks within the
study's alpha. A candidate that passes is decided. One that is unlikely to pass by the last look is futile; this rule
is non-binding, since stopping early can only lower the error. See docs/statistics.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from fnostab.decision.criteria import stage_criteria
from fnostab.decision.pairs import pairs_of
from fnostab.decision.rules import Roles, Rules
from fnostab.decision.tally import Stage
from fnostab.decision.words import failures, p_text, percent
from fnostab.stats.design import predictive_power
from fnostab.stats.rate import Rate
from fnostab.stats.sequential import FUTILE_POWER, sequential_alpha, sequential_error_and_power


class Standing(StrEnum):
    """Standing of an arm at a look; only an open arm receives more seeds."""

    DECIDED = "decided"
    FUTILE = "futile"
    OPEN = "open"


@dataclass(frozen=True)
class ArmAtLook:
    """A candidate at a look.

    Attributes:
        p: p-value of `fewer_failures` after Holm; None if it can't be tested.
        predictive_power: probability of significance at the last look; None if the arm is decided.
    """

    arm: str
    standing: Standing
    rate: Rate
    control: Rate
    control_arm: str
    p: float | None
    predictive_power: float | None

    def __str__(self) -> str:
        counts = f"{self.arm}: {failures(self.rate)} failed, {failures(self.control)} of {self.control_arm}"
        p = "" if self.p is None else f" ({p_text(self.p)})"
        chance = self.predictive_power
        last = "" if chance is None else f"; {percent(chance)} chance of fewer failures at the last look"
        return f"{counts}{p}{last}: {self.standing}"


def look_alpha(looks: Sequence[int], alpha: float, candidates: int) -> float:
    """Alpha of every look, before Holm, that controls the family-wise error over all looks and candidates.

    By the closed test procedure: a false finding among m candidates that are no better must pass, at some look, a step
    of Holm's procedure at 1 / m of this alpha or less. The error of each of them over the looks is limited to
    alpha / m, for every m: counts are whole, so that a smaller m can need a smaller alpha.

    Raises:
        ConfigError: the looks do not increase, or alpha is outside (0, 1).
    """
    level = sequential_alpha(looks, alpha)
    for m in range(2, candidates + 1):
        if sequential_error_and_power(looks, level / m, 0.5, 0.5).error > alpha / m:
            level = m * sequential_alpha(looks, alpha / m)
    return level


def judge_look(roles: Roles, stage: Stage, rules: Rules, *, seeds: int, last: int) -> list[ArmAtLook]:
    """Judge the candidates of a stage after ``seeds`` of ``last`` planned seeds; all arms if none has a role.

    Args:
        roles: roles of the arms.
        stage: trials; those with a seed of ``seeds`` or above are ignored.
        rules: rules with planned looks, with the alpha of `look_alpha` for all arms of the stage.
        seeds: seeds per arm at this look.
        last: seeds per arm at the last look.
    """
    seen = replace(stage, trials=tuple(trial for trial in stage.trials if trial.seed < seeds))
    pairs = pairs_of(seen, roles.control, rules)
    criteria = {c.arm: c for c in stage_criteria(pairs, rules) if c.name == "fewer_failures"}
    found = []
    for pair in pairs:
        if roles.candidates and pair.arm not in roles.candidates:
            continue
        criterion = criteria[pair.arm]
        standing, chance = Standing.DECIDED, None
        if not (criterion.p is not None and criterion.p <= rules.level):
            alpha = rules.level / pair.family
            chance = predictive_power(pair.control.rate, pair.ours.rate, extra=last - seeds, alpha=alpha)
            standing = Standing.FUTILE if chance < FUTILE_POWER else Standing.OPEN
        rates = pair.ours.rate, pair.control.rate
        found.append(ArmAtLook(pair.arm, standing, *rates, pair.control_arm, criterion.p, chance))
    return found
