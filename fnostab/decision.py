"""From the trials of one or two stages to a verdict. Pure: no torch, no MLflow.

Each arm is compared with control within its stage by a few named criteria. What they say together
is GOLD (the architecture is the cure), SILVER (the architecture failed, but clipping helps), PIVOT
(neither helps in the deep stage) or INCONCLUSIVE. docs/verdict.md has the rules in words.

The criteria are judged on the observed numbers. Whether those numbers could be luck is another
question, with a place of its own: `Criterion.supported`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from fnostab.errors import DecisionError
from fnostab.outcomes import EXCLUDED, Outcome
from fnostab.stats.proportions import wilson
from fnostab.table import TrialRow

__all__ = ["ArmSummary", "Criterion", "Roles", "Stage", "State", "Verdict", "VerdictName", "decide"]

LEAST_TRIALS = 3
LOSS_MARGIN = 1.10
GRAD_BOUND = 10.0  # p99 over median of the gradient norm, last half of a run
ARCHITECTURE_A = ("fewer_failures", "better_loss", "no_nonfinite")
ARCHITECTURE_B = ("fewer_failures", "no_nonfinite")
CLIPPING = ("fewer_failures", "loss_within_10pct")


class State(StrEnum):
    """What the observed numbers say of a criterion."""

    MET = "met"
    NOT_MET = "not_met"
    UNTESTABLE = "untestable"


class VerdictName(StrEnum):
    """What the decision logic makes of a study."""

    GOLD = "GOLD"
    SILVER = "SILVER"
    PIVOT = "PIVOT"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True)
class Roles:
    """Which arms play which part. A candidate that a study does not have is None."""

    control: str
    architecture: str | None = None
    clipping: str | None = None

    @property
    def candidates(self) -> dict[str, tuple[str, ...]]:
        """Arm -> the criteria that it must pass in the deep stage."""
        parts = {self.architecture: ARCHITECTURE_B, self.clipping: CLIPPING}
        return {arm: criteria for arm, criteria in parts.items() if arm is not None}


@dataclass(frozen=True)
class Stage:
    """The trials of one stage: ``a`` at standard depth, ``b`` the deep stress test."""

    name: str
    trials: tuple[TrialRow, ...]

    def arm(self, name: str) -> list[TrialRow]:
        """Trials of one arm."""
        return [trial for trial in self.trials if trial.arm == name]

    @property
    def arms(self) -> list[str]:
        """Names of the arms that were run, in order of appearance."""
        return list(dict.fromkeys(trial.arm for trial in self.trials))


@dataclass(frozen=True)
class ArmSummary:
    """What one arm did in one stage. ``median`` and ``iqr`` are over its ``n_ok`` successes only."""

    stage: str
    arm: str
    n: int  # trials with a training outcome
    n_ok: int
    n_failed: int
    n_excluded: int
    n_running: int
    failure_rate: float | None
    failure_rate_ci: tuple[float, float] | None  # Wilson, 95 %
    median: float | None
    iqr: tuple[float, float] | None
    median_ssim_amp: float | None
    median_failure_step: float | None
    outcomes: Mapping[str, int]


@dataclass(frozen=True)
class Criterion:
    """One comparison of an arm with control, or with a bound.

    Attributes:
        detail: the numbers that it rests on, in words.
        supported: by its statistical test; None where none was made.
        decides: whether verdicts may rest on it; others are only reported.
    """

    stage: str
    arm: str
    name: str
    state: State
    detail: str
    supported: bool | None = None
    decides: bool = True


@dataclass(frozen=True)
class Verdict:
    """The verdict with everything that it rests on."""

    name: VerdictName
    reason: str
    next_step: str
    arms: tuple[ArmSummary, ...]
    criteria: tuple[Criterion, ...]
    best: tuple[str, ...]  # a line for each stage: fewest failures, lowest loss
    excluded: tuple[str, ...]  # a line for each arm with trials that took no part


def decide(roles: Roles, stage_a: Stage, stage_b: Stage | None = None) -> Verdict:
    """Apply the decision logic to the trials of Stage A and, if it was run, of Stage B.

    Raises:
        DecisionError: a stage has no trial of control, or holds a trial twice.
    """
    stages = [stage_a] if stage_b is None else [stage_a, stage_b]
    for stage in stages:
        _check(stage, roles)
    criteria = [criterion for stage in stages for criterion in _stage_criteria(stage, roles)]
    if stage_b is not None:
        criteria += _deep_reports(stage_a, stage_b)
    states = {(c.stage, c.arm, c.name): c.state for c in criteria if c.decides}
    name, reason, next_step = _conclude(roles, stage_a, stage_b, states)
    summaries = tuple(summarise(stage, arm) for stage in stages for arm in stage.arms)
    return Verdict(
        name=name,
        reason=reason,
        next_step=next_step,
        arms=summaries,
        criteria=tuple(criteria),
        best=tuple(_best(stage.name, summaries) for stage in stages),
        excluded=tuple(_excluded(s) for s in summaries if s.n_excluded or s.n_running),
    )


def summarise(stage: Stage, arm: str) -> ArmSummary:
    """Count and describe the trials of one arm."""
    trials = stage.arm(arm)
    counted = [t for t in trials if t.counts]
    losses = _losses(trials)
    failed = sum(t.failed for t in counted)
    rate = failed / len(counted) if counted else None
    return ArmSummary(
        stage=stage.name,
        arm=arm,
        n=len(counted),
        n_ok=len(counted) - failed,
        n_failed=failed,
        n_excluded=sum(t.excluded for t in trials),
        n_running=sum(t.outcome is Outcome.RUNNING for t in trials),
        failure_rate=rate,
        failure_rate_ci=wilson(failed, len(counted)),
        median=_median(losses),
        iqr=(float(np.quantile(losses, 0.25)), float(np.quantile(losses, 0.75))) if losses else None,
        median_ssim_amp=_median([t.ssim_amp for t in counted if not t.failed and t.ssim_amp is not None]),
        median_failure_step=_median([t.failure_step for t in counted if t.failure_step is not None]),
        outcomes=dict(Counter(str(t.outcome) for t in trials)),
    )


# Criteria

_Judge = Callable[[Sequence[TrialRow], Sequence[TrialRow]], tuple[State, str]]


def _stage_criteria(stage: Stage, roles: Roles) -> list[Criterion]:
    control = stage.arm(roles.control)
    found = []
    for name in stage.arms:
        if name == roles.control:
            continue
        arm = stage.arm(name)
        for criterion, judge in _JUDGES.items():
            state, detail = judge(control, arm)
            if min(_n(control), _n(arm)) < LEAST_TRIALS:
                counts = f"{roles.control} {_n(control)}, {name} {_n(arm)}"
                state, detail = State.UNTESTABLE, f"needs {LEAST_TRIALS} training outcomes each, has {counts}"
            elif state is not judge(_as_successes(control), _as_failures(arm))[0]:
                state, detail = State.UNTESTABLE, f"{detail}; the excluded trials could change it (exclusions)"
            found.append(Criterion(stage.name, name, criterion, state, detail))
    return found


def _fewer_failures(control: Sequence[TrialRow], arm: Sequence[TrialRow]) -> tuple[State, str]:
    detail = f"{_failures(arm)}/{_n(arm)} failed, control {_failures(control)}/{_n(control)}"
    if not _failures(arm) and not _failures(control):
        return State.UNTESTABLE, f"neither failed: {detail}"
    lower = _failures(arm) * _n(control) < _failures(control) * _n(arm)
    return (State.MET if lower else State.NOT_MET), detail


def _no_nonfinite(control: Sequence[TrialRow], arm: Sequence[TrialRow]) -> tuple[State, str]:
    nonfinite = sum(t.outcome is Outcome.NONFINITE for t in arm)
    return (State.NOT_MET if nonfinite else State.MET), f"{nonfinite} of {_n(arm)} nonfinite"


def _loss_within(margin: float, strict: bool) -> _Judge:
    def judge(control: Sequence[TrialRow], arm: Sequence[TrialRow]) -> tuple[State, str]:
        ours, theirs = _median(_losses(arm)), _median(_losses(control))
        counts = f"(n_ok {len(_losses(arm))}/{_n(arm)}, control {len(_losses(control))}/{_n(control)})"
        if ours is None:
            return State.NOT_MET, f"no successful run {counts}"
        if theirs is None:
            if any(t.counts and not t.failed for t in control):
                return State.UNTESTABLE, f"control has successes without a loss {counts}"
            return State.MET, f"median {ours:.4g}, control has no success {counts}"
        met = ours < margin * theirs if strict else ours <= margin * theirs
        detail = f"median {ours:.4g}, control {theirs:.4g}, ratio {ours / theirs:.3f} {counts}"
        return (State.MET if met else State.NOT_MET), detail

    return judge


_JUDGES: Mapping[str, _Judge] = {
    "fewer_failures": _fewer_failures,
    "better_loss": _loss_within(1.0, strict=True),
    "loss_within_10pct": _loss_within(LOSS_MARGIN, strict=False),
    "no_nonfinite": _no_nonfinite,
}


def _deep_reports(stage_a: Stage, stage_b: Stage) -> Iterable[Criterion]:
    """What Stage B reports of each arm beside its criteria: bounded gradients, and Stage A's quality."""
    for name in stage_b.arms:
        deep = [t for t in stage_b.arm(name) if t.counts]
        ratios = [t.grad_ratio for t in deep if t.grad_ratio is not None]
        bounded = sum(ratio <= GRAD_BOUND for ratio in ratios)
        state = State.UNTESTABLE if not ratios else State.MET if bounded == len(ratios) else State.NOT_MET
        detail = f"p99 at most {GRAD_BOUND:g} times the median in {bounded} of {len(ratios)} trials"
        yield Criterion("b", name, "grad_bounded", state, detail, decides=False)

        a, b = summarise(stage_a, name), summarise(stage_b, name)
        detail = f"median loss {_number(b.median)}, Stage A {_number(a.median)}; " + (
            f"amplitude SSIM {_number(b.median_ssim_amp)}, Stage A {_number(a.median_ssim_amp)}"
        )
        state = State.UNTESTABLE
        if None not in (a.median, b.median, a.median_ssim_amp, b.median_ssim_amp):
            matches = b.median <= a.median and b.median_ssim_amp >= a.median_ssim_amp  # type: ignore[operator]
            state = State.MET if matches else State.NOT_MET
        yield Criterion("b", name, "matches_stage_a", state, detail, decides=False)


# The verdict

_States = Mapping[tuple[str, str, str], State]


def _conclude(roles: Roles, stage_a: Stage, stage_b: Stage | None, states: _States) -> tuple[VerdictName, str, str]:
    architecture, clipping = roles.architecture, roles.clipping
    if architecture is None and clipping is None:
        return VerdictName.INCONCLUSIVE, "the study names no candidates (roles), so there is nothing to decide", ""

    def are(state: State, stage: str, arm: str | None, criteria: Iterable[str]) -> list[bool]:
        return [arm is not None and states.get((stage, arm, name)) is state for name in criteria]

    if all(are(State.MET, "a", architecture, ARCHITECTURE_A) + are(State.MET, "b", architecture, ARCHITECTURE_B)):
        reason = (
            f"{architecture} fails less than control at both depths, reaches a lower loss, and never went nonfinite"
        )
        return VerdictName.GOLD, reason, f"make {architecture} the default architecture"

    architecture_failed = any(
        are(State.NOT_MET, "a", architecture, ARCHITECTURE_A) + are(State.NOT_MET, "b", architecture, ARCHITECTURE_B)
    )
    clipping_helps = all(are(State.MET, "a", clipping, CLIPPING)) and not any(
        are(State.NOT_MET, "b", clipping, CLIPPING)
    )
    if architecture_failed and clipping_helps:
        reason = f"{architecture} failed, while {clipping} fails less than control at a loss within 10 %"
        return VerdictName.SILVER, reason, f"make {clipping} the training policy"

    if stage_b is not None and _both_fail_deep(roles, stage_b, states):
        reason = f"control fails in Stage B, and so does every candidate ({', '.join(roles.candidates)})"
        return VerdictName.PIVOT, reason, "investigate LayerScale (explicit depth damping)"

    return VerdictName.INCONCLUSIVE, _blocking(roles, states), _next_step(roles, stage_a, stage_b, states)


def _both_fail_deep(roles: Roles, stage_b: Stage, states: _States) -> bool:
    if not _failures(stage_b.arm(roles.control)):
        return False
    if not any(_n(stage_b.arm(arm)) >= LEAST_TRIALS for arm in roles.candidates):
        return False

    def fails(arm: str, deep_criteria: Iterable[str]) -> bool:
        stage, criteria = ("b", deep_criteria) if stage_b.arm(arm) else ("a", _criteria_a(roles, arm))
        return any(states.get((stage, arm, name)) is State.NOT_MET for name in criteria)

    return all(fails(arm, criteria) for arm, criteria in roles.candidates.items())


def _criteria_a(roles: Roles, arm: str) -> tuple[str, ...]:
    return ARCHITECTURE_A if arm == roles.architecture else CLIPPING


def _blocking(roles: Roles, states: _States) -> str:
    """Which criteria stand in the way of each candidate."""
    lines = []
    for arm, deep in roles.candidates.items():
        needed = [("a", name) for name in _criteria_a(roles, arm)]
        if any(stage == "b" for stage, _, _ in states):
            needed += [("b", name) for name in deep]
        missing: dict[tuple[str, str], list[str]] = {}
        for stage, name in needed:
            state = states.get((stage, arm, name))
            if state is not State.MET:
                missing.setdefault((stage, "not run" if state is None else str(state)), []).append(name)
        blocks = [
            f"{state} in Stage {stage.upper()}" + (f" ({', '.join(names)})" if state != "not run" else "")
            for (stage, state), names in missing.items()
        ]
        lines.append(f"{arm} {', '.join(blocks) or 'passes Stage A, and Stage B was not run'}")
    return "; ".join(lines)


def _next_step(roles: Roles, stage_a: Stage, stage_b: Stage | None, states: _States) -> str:
    passing = [
        arm
        for arm in roles.candidates
        if all(states.get(("a", arm, name)) is State.MET for name in _criteria_a(roles, arm))
    ]
    if stage_b is None and not passing:
        return f"run Stage B with {roles.control}"
    if stage_b is None and roles.architecture in passing:
        return f"run Stage B with {roles.architecture} (and {roles.control}, to compare it with)"
    control = [*stage_a.arm(roles.control), *(stage_b.arm(roles.control) if stage_b else [])]
    if not _failures(control):
        return f"{roles.control} failed nowhere, so there is nothing to cure at this depth: go deeper"
    untestable = sorted(
        {f"{arm} in Stage {stage.upper()}" for (stage, arm, _), s in states.items() if s is State.UNTESTABLE}
    )
    if untestable:
        return f"run more seeds: {', '.join(untestable)} can't be tested yet"
    if stage_b is not None and roles.architecture in passing and not stage_b.arm(roles.architecture):
        return f"run Stage B with {roles.architecture}"
    return "run more seeds, or try another candidate: no candidate passes every criterion"


# Small things


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


def _n(trials: Sequence[TrialRow]) -> int:
    return sum(t.counts for t in trials)


def _failures(trials: Sequence[TrialRow]) -> int:
    return sum(t.failed for t in trials)


def _losses(trials: Sequence[TrialRow]) -> list[float]:
    return [t.loss for t in trials if t.outcome is Outcome.CONVERGED and t.loss is not None]


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


def _as_failures(trials: Sequence[TrialRow]) -> list[TrialRow]:
    return [replace(t, outcome=Outcome.STAGNATED, loss=None) if t.excluded else t for t in trials]


def _as_successes(trials: Sequence[TrialRow]) -> list[TrialRow]:
    return [replace(t, outcome=Outcome.CONVERGED, loss=None) if t.excluded else t for t in trials]


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _best(stage: str, summaries: Iterable[ArmSummary]) -> str:
    ran = [s for s in summaries if s.stage == stage and s.n]
    if not ran:
        return f"Stage {stage.upper()}: no training outcome"
    fewest = min(ran, key=lambda s: s.failure_rate or 0.0)
    line = f"Stage {stage.upper()}: fewest failures {fewest.arm} ({fewest.n_failed}/{fewest.n})"
    with_loss = [(s.median, s) for s in ran if s.median is not None]
    if not with_loss:
        return line + ", no successful run"
    loss, lowest = min(with_loss, key=lambda pair: pair[0])
    return line + f", lowest median loss {lowest.arm} ({loss:.4g}, n_ok {lowest.n_ok}/{lowest.n})"


def _excluded(summary: ArmSummary) -> str:
    counts = ", ".join(
        f"{n} {outcome}" for outcome, n in summary.outcomes.items() if outcome in (*EXCLUDED, Outcome.RUNNING)
    )
    prefix = "" if summary.n else "no training outcome: "
    total = sum(summary.outcomes.values())
    return f"Stage {summary.stage.upper()}, {summary.arm}: {prefix}{counts} of {total}"
