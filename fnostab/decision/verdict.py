"""The verdict: GOLD, SILVER, PIVOT or INCONCLUSIVE, in this order of precedence.

GOLD: the architecture arm meets its criteria at both depths. SILVER: it failed one of them, and the
clipping arm meets its own. PIVOT: control fails in the deep stage, and so does every candidate.
INCONCLUSIVE otherwise, with what blocks and what to do next.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from fnostab.decision.advice import blocking, next_step, not_out, seeds_step
from fnostab.decision.criteria import Criterion, State, States, Tallies, stage_criteria, states_of
from fnostab.decision.deep import deep_reports
from fnostab.decision.rules import Roles, Rules
from fnostab.decision.tally import ArmSummary, Stage, Tally, summarise
from fnostab.errors import DecisionError

__all__ = ["Conclusion", "Verdict", "VerdictName", "conclude", "decide"]


class VerdictName(StrEnum):
    """What the decision logic makes of a study."""

    GOLD = "GOLD"
    SILVER = "SILVER"
    PIVOT = "PIVOT"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True)
class Conclusion:
    """A verdict's name, why, what to do, and the criteria (stage, arm, name) that it rests on.

    Of an INCONCLUSIVE one, why and what to do are left to `blocking` and `next_step`, which take their time.
    """

    name: VerdictName
    reason: str = ""
    next_step: str = ""
    rests_on: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Verdict:
    """The verdict with everything that it rests on.

    Attributes:
        supported: whether every criterion that it rests on is; None if it is INCONCLUSIVE.
        winner: the arm that it chooses; None if it chooses none.
        stage_b: control and the arms that deserve the deep test: what a chosen one is to be tested with, or what
            an INCONCLUSIVE one asks for; empty if something else comes next.
        best: a line for each stage: fewest failures, lowest loss.
    """

    name: VerdictName
    supported: bool | None
    reason: str
    next_step: str
    winner: str | None
    stage_b: tuple[str, ...]
    arms: tuple[ArmSummary, ...]
    criteria: tuple[Criterion, ...]
    best: tuple[str, ...]


def decide(
    roles: Roles,
    stage_a: Stage,
    stage_b: Stage | None = None,
    *,
    rules: Rules | None = None,
    require_support: bool = False,
) -> Verdict:
    """Apply the decision logic to the trials of Stage A and, if it was run, of Stage B.

    Args:
        roles: which arms play which part.
        stage_a: at standard depth.
        stage_b: the deep stress test.
        rules: numbers that the decision rests on.
        require_support: turn a verdict that its tests do not support into INCONCLUSIVE.

    Raises:
        DecisionError: a stage has no trial of control, or holds a trial twice.
    """
    rules = rules or Rules()
    stages = {stage.name: stage for stage in (stage_a, stage_b) if stage is not None}
    for stage in stages.values():
        _check(stage, roles)
    summaries = {
        name: {arm: summarise(s, arm, roles.control, higher_is_better=rules.higher_is_better) for arm in s.arms}
        for name, s in stages.items()
    }
    criteria = [c for name, stage in stages.items() for c in stage_criteria(stage, roles, rules, summaries[name])]
    if stage_b is not None:
        criteria += deep_reports(stage_b, summaries["a"], summaries["b"], rules)
    tallies = {name: {arm: Tally.of(stage.arm(arm)) for arm in stage.arms} for name, stage in stages.items()}
    conclusion = conclude(roles, tallies, rules)
    supported = _supported(conclusion, roles, criteria, rules)
    winners = {VerdictName.GOLD: roles.architecture, VerdictName.SILVER: roles.clipping}
    winner = winners.get(conclusion.name)
    deserving = not_out(roles, tallies, rules) if winner else ()
    if conclusion.name is VerdictName.INCONCLUSIVE:
        step = next_step(roles, tallies, rules)
        conclusion = replace(conclusion, reason=blocking(roles, tallies, rules), next_step=step.text)
        deserving = step.stage_b
    elif require_support and not supported:
        conclusion = Conclusion(
            VerdictName.INCONCLUSIVE,
            f"{conclusion.name} on the observed numbers, but unsupported: {_unsupported(conclusion, criteria, rules)}",
            seeds_step(roles, tallies, rules),
        )
        supported = winner = None
        deserving = ()
    return Verdict(
        name=conclusion.name,
        supported=supported,
        reason=conclusion.reason,
        next_step=conclusion.next_step,
        winner=winner,
        stage_b=deserving,
        arms=tuple(summary for of_stage in summaries.values() for summary in of_stage.values()),
        criteria=tuple(criteria),
        best=tuple(_best(name, list(of_stage.values()), rules) for name, of_stage in summaries.items()),
    )


def conclude(roles: Roles, tallies: Tallies, rules: Rules) -> Conclusion:
    """The verdict on observed numbers alone."""
    if not roles.candidates:
        return Conclusion(VerdictName.INCONCLUSIVE)
    states = states_of(roles, tallies, rules)
    architecture, clipping = roles.architecture, roles.clipping

    def keys(arm: str | None, stages: str) -> list[tuple[str, str, str]]:
        return [(stage, arm, name) for stage in stages for name in roles.criteria(arm, stage)] if arm else []

    of_architecture = keys(architecture, "ab")
    if of_architecture and all(states.get(key) is State.MET for key in of_architecture):
        reason = (
            f"{architecture} fails less than control at both depths, reaches a lower loss, and never went nonfinite"
        )
        next_step = f"make {architecture} the default architecture"
        return Conclusion(VerdictName.GOLD, reason, next_step, tuple(of_architecture))

    architecture_failed = any(states.get(key) is State.NOT_MET for key in of_architecture)
    clipping_helps = all(states.get(key) is State.MET for key in keys(clipping, "a"))
    clipping_fails_deep = any(states.get(key) is State.NOT_MET for key in keys(clipping, "b"))
    if clipping and architecture_failed and clipping_helps and not clipping_fails_deep:
        reason = f"{architecture} failed, while {clipping} fails less than control at a loss within the margin"
        return Conclusion(
            VerdictName.SILVER, reason, f"make {clipping} the training policy", tuple(keys(clipping, "a"))
        )

    if _nothing_helps_deep(roles, tallies, states, rules):
        reason = f"control fails in Stage B, and no candidate cures it ({', '.join(roles.candidates)})"
        return Conclusion(VerdictName.PIVOT, reason, "investigate LayerScale (explicit depth damping)")
    return Conclusion(VerdictName.INCONCLUSIVE)


def _nothing_helps_deep(roles: Roles, tallies: Tallies, states: States, rules: Rules) -> bool:
    deep = tallies.get("b")
    if deep is None or not deep[roles.control].failed:
        return False
    if not any(arm in deep and deep[arm].n >= rules.least_trials for arm in roles.candidates):
        return False
    stage_of = {arm: "b" if arm in deep else "a" for arm in roles.candidates}
    return all(
        any(states.get((stage, arm, name)) is State.NOT_MET for name in roles.criteria(arm, stage))
        for arm, stage in stage_of.items()
    )


def _supported(conclusion: Conclusion, roles: Roles, criteria: Iterable[Criterion], rules: Rules) -> bool | None:
    by_key = {(c.stage, c.arm, c.name): c for c in criteria}
    if conclusion.name is VerdictName.INCONCLUSIVE:
        return None
    if conclusion.name is VerdictName.PIVOT:
        reductions = [
            by_key.get(("b", arm, "fewer_failures"), by_key.get(("a", arm, "fewer_failures")))
            for arm in roles.candidates
        ]
        return all(c is not None and c.ci is not None and c.ci[1] < rules.pivot_reduction for c in reductions)
    return all(by_key[key].supported for key in conclusion.rests_on)


def _unsupported(conclusion: Conclusion, criteria: Iterable[Criterion], rules: Rules) -> str:
    """The criteria for which a verdict is not supported."""
    if conclusion.name is VerdictName.PIVOT:
        return f"a failure rate lower by {rules.pivot_reduction:g} is not ruled out for every candidate"
    return ", ".join(
        f"{c.name} of {c.arm} in Stage {c.stage.upper()}" + ("" if c.p is None else f" (p = {c.p:.3g})")
        for c in criteria
        if (c.stage, c.arm, c.name) in conclusion.rests_on and not c.supported
    )


def _check(stage: Stage, roles: Roles) -> None:
    if not stage.arm(roles.control):
        raise DecisionError(
            f"Stage {stage.name.upper()} has no trial of the control arm {roles.control!r}; "
            f"its arms: {', '.join(stage.arms) or 'none'}"
        )
    repeated = [key for key, n in Counter((t.arm, t.seed) for t in stage.trials).items() if n > 1]
    if repeated:
        arm, seed = repeated[0]
        raise DecisionError(f"Stage {stage.name.upper()} has arm {arm!r} with seed {seed} twice: keep one of them")


def _best(stage: str, summaries: list[ArmSummary], rules: Rules) -> str:
    ran = [s for s in summaries if s.n]
    if not ran:
        return f"Stage {stage.upper()}: no training outcome"
    fewest = min(ran, key=lambda s: s.failure_rate or 0.0)
    line = f"Stage {stage.upper()}: fewest failures {fewest.arm} ({fewest.n_failed}/{fewest.n})"
    medians = [(s.median, s) for s in ran if s.median is not None]
    if not medians:
        return line + ", no successful run"
    loss, best = (max if rules.higher_is_better else min)(medians, key=lambda pair: pair[0])
    return line + f", best median {best.arm} ({loss:.4g}, n_ok {best.n_ok}/{best.n})"
