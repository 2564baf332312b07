"""Criteria that compare an arm with control within one stage.

The state of a criterion follows from the observed numbers; it must also hold in the worst case for the trials without
an outcome. A significance test follows: Boschloo's for failure rates, Mann-Whitney's for losses, one-sided, with
Holm's correction over all arms of the stage.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from fnostab.decision.pairs import Pair
from fnostab.decision.rules import Rules
from fnostab.decision.scale import Scale
from fnostab.decision.tally import Tally
from fnostab.decision.words import percent
from fnostab.record.plurals import counted
from fnostab.stats.losses import Effect
from fnostab.stats.proportions import clopper_pearson_upper, fewer_failures_p, holm, newcombe_difference


class State(StrEnum):
    """State of a criterion by the observed numbers."""

    MET = "met"
    NOT_MET = "not_met"
    UNTESTABLE = "untestable"

    @classmethod
    def of(cls, holds: bool) -> "State":
        """Convert a truth value: met or not met."""
        return cls.MET if holds else cls.NOT_MET


@dataclass(frozen=True)
class Criterion:
    """One comparison, with its evidence.

    Attributes:
        detail: observed numbers, as text.
        supported: whether a met criterion is significant; None if it was not tested.
        p: one-sided p-value, after Holm.
        effect: reduction of the failure rate, or ratio or difference of the losses (``is_ratio`` says which).
        ci: 95 % interval of the effect.
        decides: whether verdicts may rest on the criterion; others are only reported.
    """

    stage: str
    arm: str
    name: str
    state: State
    detail: str
    supported: bool | None = None
    test: str | None = None
    p: float | None = None
    effect: float | None = None
    ci: tuple[float, float] | None = None
    is_ratio: bool = False
    decides: bool = True


def _fewer_failures(pair: Pair) -> State:
    if pair.nothing_failed:
        return State.UNTESTABLE
    return State.of(pair.ours.failed * pair.control.n < pair.control.failed * pair.ours.n)


def _no_nonfinite(pair: Pair) -> State:
    return State.of(not pair.ours.nonfinite)


def _better_loss(pair: Pair) -> State:
    return _compare_losses(pair, pair.scale.better)


def _loss_within(pair: Pair) -> State:
    return State.UNTESTABLE if pair.scale.margin is None else _compare_losses(pair, pair.scale.within)


def _compare_losses(pair: Pair, holds: Callable[[float, float], bool]) -> State:
    least, ours, theirs = pair.rules.least_trials, pair.ours, pair.control
    if not ours.ok:
        return State.NOT_MET
    if len(ours.losses) < least or not theirs.n:
        return State.UNTESTABLE
    mine, other = ours.median, theirs.median
    if len(theirs.losses) < least:  # over all trials, failures ranked last
        if theirs.unknown:
            return State.UNTESTABLE
        mine, other = (_middle(_with_failures(tally, pair.scale), pair.scale.worst) for tally in (ours, theirs))
    if mine is None or other is None:
        return State.UNTESTABLE
    if mine == other == pair.scale.worst:  # most trials of both failed
        return State.of(ours.ok * theirs.n > theirs.ok * ours.n)
    return State.of(holds(mine, other))


def _with_failures(tally: Tally, scale: Scale) -> list[float]:
    """Losses of all trials; a failure is worse than any loss, an imputed success better than any."""
    return [*tally.losses, *[scale.worst] * tally.failed, *[-scale.worst] * tally.guessed]


def _middle(values: list[float], worst: float) -> float:
    """Median; between the best and the worst possible values, which have no mean, the worst."""
    ordered = sorted(values)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return worst if math.isinf(low) and math.isinf(high) and low != high else (low + high) / 2


CRITERIA: Mapping[str, Callable[[Pair], State]] = {
    "fewer_failures": _fewer_failures,
    "better_loss": _better_loss,
    "loss_within_margin": _loss_within,
    "no_nonfinite": _no_nonfinite,
}


def state_of(name: str, pair: Pair) -> State:
    """Judge the state of a criterion, also with imputed outcomes for excluded trials."""
    if pair.obstacle:
        return State.UNTESTABLE
    judge = CRITERIA[name]
    state = judge(pair)
    if not pair.pending or state is State.UNTESTABLE:
        return state
    other = judge(pair.worst if state is State.MET else pair.best)
    return state if other is state else State.UNTESTABLE


def why_untestable(name: str, pair: Pair) -> str:
    """Reason why a criterion can't be tested, as text; empty if it can."""
    if state_of(name, pair) is not State.UNTESTABLE:
        return ""
    if pair.obstacle:
        return pair.obstacle
    if CRITERIA[name](pair) is not State.UNTESTABLE:
        many = f"{counted(pair.pending, 'trial')} without an outcome"
        return f"{many} could change it"
    if name == "fewer_failures":
        return "neither failed" if pair.rules.failure_judged else "failure not judged"
    if name == "loss_within_margin" and pair.scale.margin is None:
        return "the study names no margin"
    few = pair.ours.ok < pair.rules.least_trials
    return f"only {pair.ours.ok} of {pair.ours.n} did not fail" if few else "the losses of the successes are not known"


def stage_criteria(pairs: Sequence[Pair], rules: Rules) -> list[Criterion]:
    """Judge every criterion of every arm of a stage; Holm's family is all arms, and an untestable one has p = 1."""
    found: list[Criterion] = []
    for name in CRITERIA:
        raw = [_tested(name, pair) for pair in pairs]
        adjusted = holm([1.0 if c.state is State.UNTESTABLE or c.p is None else c.p for c in raw])
        found += [_with_support(c, p, rules) for c, p in zip(raw, adjusted, strict=True)]
    order = {pair.arm: place for place, pair in enumerate(pairs)}
    return sorted(found, key=lambda c: order[c.arm])


def _with_support(criterion: Criterion, p: float, rules: Rules) -> Criterion:
    if criterion.state is State.UNTESTABLE:
        return replace(criterion, p=None)
    is_met = criterion.state is State.MET
    if criterion.p is None:
        return replace(criterion, supported=is_met)
    return replace(criterion, p=p, supported=is_met and p <= rules.level)


def _tested(name: str, pair: Pair) -> Criterion:
    """Judge a criterion with its p-value before Holm: the larger of the observed and the worst case."""
    state, problem = state_of(name, pair), why_untestable(name, pair)
    detail = problem if pair.obstacle else "; ".join(filter(None, (_detail(name, pair), problem)))
    bare = Criterion(pair.stage, pair.arm, name, state, detail)
    if pair.obstacle or name == "no_nonfinite":
        return bare
    if name == "fewer_failures":
        ours, theirs = pair.ours.rate, pair.control.rate
        p = fewer_failures_raw_p(pair)
        reduction, ci = theirs.value - ours.value, newcombe_difference(theirs, ours)
        return replace(bare, test="Boschloo", p=p, effect=reduction, ci=ci)
    within = name == "loss_within_margin"
    if len(pair.control.losses) < pair.rules.least_trials:
        p = max(_all_trials_p(pair, within), _all_trials_p(pair.worst, within) if pair.pending else 0.0)
        return replace(bare, test="Mann-Whitney, counting a failed run as worst of all", p=p)
    effect = _effect(pair.scale, pair.ours.losses, pair.control.losses)
    return replace(
        bare,
        test="Mann-Whitney, shifted by the margin" if within else "Mann-Whitney",
        p=pair.scale.p_better(pair.ours.losses, pair.control.losses, within=within),
        effect=effect.value if effect else None,
        ci=effect.interval if effect else None,
        is_ratio=pair.scale.is_ratio,
    )


def fewer_failures_raw_p(pair: Pair) -> float:
    """p-value for fewer failures than control, before Holm: the larger of the observed and the worst case."""
    if pair.obstacle:
        return 1.0
    worst = pair.worst
    observed = fewer_failures_p(pair.control.rate, pair.ours.rate)
    return max(observed, fewer_failures_p(worst.control.rate, worst.ours.rate)) if pair.pending else observed


def _all_trials_p(pair: Pair, within: bool) -> float:
    ours, theirs = (_with_failures(tally, pair.scale) for tally in (pair.ours, pair.control))
    return pair.scale.p_better(ours, theirs, within=within)


@lru_cache(maxsize=64)
def _effect(scale: Scale, ours: tuple[float, ...], theirs: tuple[float, ...]) -> Effect | None:
    """Cached `Scale.effect`: two criteria and the answer need the same effect."""
    return scale.effect(ours, theirs)


def _detail(name: str, pair: Pair) -> str:
    ours, theirs = pair.ours, pair.control
    judged = pair.rules.failure_judged or not pair.nothing_failed
    if name == "fewer_failures":
        return f"{_failed(ours)}, {pair.control_arm} {_failed(theirs)}" if judged else ""
    if name == "no_nonfinite":
        return f"{ours.nonfinite} of {ours.n} nonfinite"
    mine, other = (_median_text(tally, judged) for tally in (ours, theirs))
    return f"{mine}, {pair.control_arm} {other}"


def _median_text(tally: Tally, judged: bool) -> str:
    if not judged:
        return f"median {tally.median:.4g} of {tally.ok}" if tally.losses else "none"
    if tally.median is None:
        return f"no median ({tally.ok or 'none'} of {tally.n} did not fail{', of unknown loss' if tally.ok else ''})"
    return f"median {tally.median:.4g} of the {tally.ok} of {tally.n} that did not fail"


def _failed(tally: Tally) -> str:
    if tally.failed:
        return f"{tally.rate} failed"
    return f"0/{tally.n} failed (at most {percent(clopper_pearson_upper(tally.n) or 1.0)})"
