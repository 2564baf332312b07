"""Looking at a study before all its seeds have run: which arms are decided, and which are not worth more seeds.

Every look tests `fewer_failures` as always, with Holm, at a level for which the error over all looks stays within
the study's alpha. A candidate that passes is decided. One whose test is unlikely to succeed by the last look is
futile; that rule is not binding, since stopping early can only lower the error. See docs/statistics.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from fnostab.decision.criteria import stage_criteria
from fnostab.decision.rules import Roles, Rules
from fnostab.decision.tally import Stage, Tally, summarise
from fnostab.stats.design import predictive_power
from fnostab.stats.sequential import FUTILE_POWER, sequential_alpha

__all__ = ["ArmAtLook", "Standing", "judge_look", "look_alpha"]


class Standing(StrEnum):
    """Whether an arm takes more seeds."""

    DECIDED = "decided"
    FUTILE = "futile"
    OPEN = "open"


@dataclass(frozen=True)
class ArmAtLook:
    """What a look says of a candidate.

    Attributes:
        failed: of ``n`` training outcomes; control's beside it.
        p: of `fewer_failures` after Holm; None if it can't be tested.
        predictive_power: that it is significant at the last look; None if it is decided.
    """

    arm: str
    standing: Standing
    failed: int
    n: int
    control_failed: int
    control_n: int
    p: float | None
    predictive_power: float | None

    def __str__(self) -> str:
        counts = f"{self.arm}: {self.failed}/{self.n} failed, control {self.control_failed}/{self.control_n}"
        p = "" if self.p is None else f", p = {self.p:.3g}"
        chance = "" if self.predictive_power is None else f", predictive power {self.predictive_power:.2f}"
        return f"{counts}{p}{chance}: {self.standing}"


def look_alpha(looks: Sequence[int], alpha: float, candidates: int) -> float:
    """Alpha of every look, before Holm, that keeps the family-wise error over all looks and candidates.

    By the closed test: for one candidate alone it is `sequential_alpha`; that any of them is found, where none is
    better, has Holm's first step at each look, whose errors over the looks are kept to alpha / candidates each.

    Raises:
        ConfigError: looks that do not rise, or alpha outside (0, 1).
    """
    return min(sequential_alpha(looks, alpha), candidates * sequential_alpha(looks, alpha / candidates))


def judge_look(roles: Roles, stage: Stage, rules: Rules, *, seeds: int, last: int) -> list[ArmAtLook]:
    """Judge the arms of a stage after ``seeds`` of ``last`` planned seeds; arms without a part if no arm has one.

    Args:
        roles: which arms are compared.
        stage: the trials; those with a seed of ``seeds`` or above are not looked at.
        rules: whose alpha is `look_alpha`.
        seeds: per arm at this look.
        last: per arm at the last one.
    """
    seen = Stage(stage.name, tuple(trial for trial in stage.trials if trial.seed < seeds))
    summaries = {arm: summarise(seen, arm, roles.control) for arm in seen.arms}
    criteria = {c.arm: c for c in stage_criteria(seen, roles, rules, summaries) if c.name == "fewer_failures"}
    candidates = roles.candidates or tuple(arm for arm in seen.arms if arm != roles.control)
    control = Tally.of(seen.arm(roles.control))
    found = []
    for arm in candidates:
        if arm not in criteria:
            continue
        tally, criterion = Tally.of(seen.arm(arm)), criteria[arm]
        counts = (control.failed, control.n, tally.failed, tally.n)
        standing, chance = Standing.DECIDED, None
        if not (criterion.p is not None and criterion.p <= rules.alpha):
            chance = predictive_power(*counts, extra=last - seeds, alpha=rules.alpha / len(candidates))
            standing = Standing.FUTILE if chance < FUTILE_POWER else Standing.OPEN
        found.append(ArmAtLook(arm, standing, tally.failed, tally.n, *counts[:2], criterion.p, chance))
    return found
