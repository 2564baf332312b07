"""Outcomes of trials, and the rules that decide them.

A rule looks at the validations of one trial (and at its first non-finite step) and answers whether
it holds at each of them. The outcome is judged at the end, on the final weights: a run that met a
rule and recovered did not fail. Rules are data: a task or a study file gives them, the record of a
trial holds them, and a trial that has ended can be judged again by others.

Without thresholds of a task, rules hold for any sign and scale of a loss: adding a constant to
every loss changes no outcome.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from fnostab.record.settings import Frozen

__all__ = [
    "EXCLUDED",
    "FAILURES",
    "TRAINING_OUTCOMES",
    "Bound",
    "Judgement",
    "Outcome",
    "OutcomeRules",
    "Validation",
    "judge",
    "looks_failed",
]

SHARE_OF_STEPS = 0.1  # over which a level of the training loss is taken


class Outcome(StrEnum):
    """What became of a trial. Also its value of the MLflow tag ``fnostab.outcome``."""

    CONVERGED = "converged"
    NONFINITE = "nonfinite"
    COLLAPSED = "collapsed"  # constant output
    EXPLODED = "exploded"
    STAGNATED = "stagnated"
    OOM = "oom"
    KILLED = "killed"
    INFRA_ERROR = "infra_error"
    RUNNING = "running"


FAILURES = (Outcome.NONFINITE, Outcome.COLLAPSED, Outcome.EXPLODED, Outcome.STAGNATED)
"""Failures of training, in order of precedence when several rules hold."""

TRAINING_OUTCOMES = (Outcome.CONVERGED, *FAILURES)
"""Outcomes that count in rates and medians."""

EXCLUDED = (Outcome.OOM, Outcome.KILLED, Outcome.INFRA_ERROR)
"""Not failures of training: listed beside every rate, never counted in it."""


class Bound(Frozen):
    """Holds for values on one side of a number, at so many validations running."""

    above: float | None = None
    below: float | None = None
    validations: Annotated[int, Field(gt=0)] = 1
    ends_early: bool = False  # whether a trial is ended as soon as it holds, once it had time to start

    @model_validator(mode="after")
    def _one_side(self) -> Self:
        if (self.above is None) == (self.below is None):
            raise ValueError("expected one of above and below, as in {below: 0.1}")
        return self

    def holds(self, value: float | None) -> bool:
        """Whether it holds for a value; not for one that was not measured. NaN is on no side."""
        if value is None:
            return False
        return value > self.above if self.above is not None else value < (self.below or 0.0)

    def holds_at(self, values: Sequence[float | None]) -> list[bool]:
        """The same for each of a sequence, with the validations before it that are asked for."""
        held = [self.holds(value) for value in values]
        n = self.validations
        return [i + 1 >= n and all(held[i + 1 - n : i + 1]) for i in range(len(held))]


class OutcomeRules(Frozen):
    """What counts as a failure, as data.

    Of a loss: lower is better. Where a higher metric is better, `judge` is given it with its sign turned,
    and these rules too (`turned`).
    """

    baseline: float | None = None  # what an output that has learnt nothing gets
    failed: Bound | None = None  # of the metric, at the last validation: stagnated
    collapsed: dict[str, Bound] = Field(default={})  # measures of the output: any of them
    meaningless: dict[str, Bound] = Field(default={})  # measures at which a good loss proves nothing
    # Of losses above zero, as shares and multiples; without them the trial's own progress is the scale
    stagnated_vs_baseline: Annotated[float, Field(gt=0)] | None = None
    exploded_vs_baseline: Annotated[float, Field(gt=0)] | None = None
    exploded_vs_best: Annotated[float, Field(gt=0)] | None = None

    def turned(self) -> "OutcomeRules":
        """The same rules for a metric that is higher the better it is, once its sign is turned."""
        failed = self.failed
        if failed is not None:
            failed = Bound(
                above=None if failed.below is None else -failed.below,
                below=None if failed.above is None else -failed.above,
                validations=failed.validations,
            )
        return self.model_copy(update={"baseline": None if self.baseline is None else -self.baseline, "failed": failed})


@dataclass(frozen=True)
class Validation:
    """One validation of a trial.

    Attributes:
        step: 0-based optimiser step after which it took place.
        loss: the monitored validation loss; NaN and Inf are accepted.
        measures: what else was measured of the output, by metric name.
    """

    step: int
    loss: float
    measures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgement:
    """The outcome of a trial and its evidence.

    Attributes:
        outcome: the rule with the highest precedence that held, or ``converged``.
        failure_step: 0-based optimiser step of the failure; None if it did not fail.
        known_good_step: last step at which the failure had not begun yet, so that its time lies in
            ``(known_good_step, failure_step]``; None if it did not fail or failed from the start.
        rules_held: every rule that held, by precedence.
        not_judged: what could not be judged, each with its reason.
    """

    outcome: Outcome
    failure_step: int | None = None
    known_good_step: int | None = None
    rules_held: tuple[Outcome, ...] = ()
    not_judged: tuple[str, ...] = ()


def judge(
    validations: Sequence[Validation],
    *,
    first_nonfinite_step: int | None,
    last_step: int,
    baseline: float | None,
    rules: OutcomeRules,
    training: Sequence[float] = (),
) -> Judgement:
    """Judge a trial that has ended, in which something was observed.

    Args:
        validations: in the order in which they took place.
        first_nonfinite_step: 0-based step of the first non-finite loss, gradient or output.
        last_step: last scheduled optimiser step, 0-based: when a stagnated run is known to be one.
        baseline: validation loss of an output that has learnt nothing; None if unknown.
        rules: what counts as a failure.
        training: training losses by step, (steps,), as far as they were recorded.
    """
    held: dict[Outcome, tuple[int, int | None]] = {}
    not_judged = []

    if first := _first_nonfinite(validations, first_nonfinite_step):
        held[Outcome.NONFINITE] = first
    if not any(name in v.measures for v in validations for name in rules.collapsed):
        measures = " or ".join(sorted(rules.collapsed)) or "a measure of the output's spread"
        not_judged.append(f"collapsed: needs {measures}")
    elif stretch := _final_stretch(validations, collapsed_at(validations, rules)):
        held[Outcome.COLLAPSED] = stretch
    if len(validations) < 2:
        not_judged.append("exploded: needs two validations")
    elif stretch := _final_stretch(validations, exploded_at(validations, baseline, rules, training), least=2):
        held[Outcome.EXPLODED] = stretch
    if rules.failed is not None and (
        stretch := _final_stretch(validations, rules.failed.holds_at([v.loss for v in validations]))
    ):
        held[Outcome.STAGNATED] = stretch
    elif baseline is None or not validations:
        if rules.failed is None or not validations:
            unknown = "the loss of an output that has learnt nothing is unknown"
            missing = unknown if baseline is None else "needs a validation"
            not_judged.append(f"stagnated: {missing}")
    elif not _has_learnt(_best(_meaningful(validations, rules)), baseline, rules):
        held[Outcome.STAGNATED] = (last_step, None)

    by_precedence = tuple(outcome for outcome in FAILURES if outcome in held)
    if not by_precedence:
        return Judgement(Outcome.CONVERGED, not_judged=tuple(not_judged))
    failure_step, known_good_step = held[by_precedence[0]]
    return Judgement(by_precedence[0], failure_step, known_good_step, by_precedence, tuple(not_judged))


def collapsed_at(validations: Sequence[Validation], rules: OutcomeRules) -> list[bool]:
    """Whether the output is constant at each validation, by any of the rules' measures."""
    held = [bound.holds_at([v.measures.get(name) for v in validations]) for name, bound in rules.collapsed.items()]
    return [any(each) for each in zip(*held, strict=True)] or [False] * len(validations)


def ends_early(validations: Sequence[Validation], rules: OutcomeRules) -> bool:
    """Whether a rule that ends a trial early holds at the last validation."""
    bounds = [(name, bound) for name, bound in rules.collapsed.items() if bound.ends_early]
    return any(bound.holds_at([v.measures.get(name) for v in validations])[-1:] == [True] for name, bound in bounds)


def exploded_at(
    validations: Sequence[Validation], baseline: float | None, rules: OutcomeRules, training: Sequence[float] = ()
) -> list[bool]:
    """Whether the loss at each validation is far above where the trial began, or above its own best so far.

    By shares of the baseline and multiples of the best where the rules give them. Else a loss has exploded
    that lies as far above the start (the baseline, if it is known, or the first validation) as the best so far
    lies below it: all that was learnt is lost, and as much again. The range of the training loss over the first
    tenth of the steps takes the place of that distance where it is larger. A validation loss that rises while the
    training loss goes on falling is overfitting, and not meant.
    """
    losses = [v.loss if math.isfinite(v.loss) else math.inf for v in validations]
    best = list(itertools.accumulate(losses, min))
    if rules.exploded_vs_best is not None or rules.exploded_vs_baseline is not None:
        of_baseline = math.inf
        if baseline is not None and rules.exploded_vs_baseline is not None:
            of_baseline = rules.exploded_vs_baseline * baseline
        of_best = math.inf if rules.exploded_vs_best is None else rules.exploded_vs_best
        return [
            not v.loss <= min(of_baseline, of_best * so_far if math.isfinite(of_best) else math.inf)
            for v, so_far in zip(validations, best, strict=True)
        ]
    start = losses[0] if baseline is None and losses else baseline
    if start is None or not math.isfinite(start):
        return [not math.isfinite(v.loss) for v in validations]
    early = _early_range(training)
    exploded = []
    for v, loss, so_far in zip(validations, losses, best, strict=True):
        scale = max(start - so_far, early)
        risen = not math.isfinite(v.loss) or (scale > 0 and loss > start + scale)
        exploded.append(risen and not _still_learns(training, v.step, _step_of(validations, so_far)))
    return exploded


def looks_failed(validations: Sequence[Validation], baseline: float | None, rules: OutcomeRules) -> bool:
    """Whether the last validation may turn out to be where a failure began, if it goes on like this."""
    if not validations:
        return False
    last = validations[-1]
    return (
        not math.isfinite(last.loss)
        or any(bound.holds(last.measures.get(name)) for name, bound in rules.collapsed.items())
        or exploded_at(validations, baseline, rules)[-1]
    )


def _has_learnt(best: float, baseline: float, rules: OutcomeRules) -> bool:
    if rules.stagnated_vs_baseline is not None:
        return best <= rules.stagnated_vs_baseline * baseline
    return best < baseline and not math.isclose(best, baseline, rel_tol=1e-9)


def _early_range(training: Sequence[float]) -> float:
    """Range of the training loss over the first tenth of its steps; 0 where none was recorded."""
    early = np.asarray(training[: max(math.ceil(len(training) * SHARE_OF_STEPS), 1)], dtype=float)
    early = early[np.isfinite(early)]
    return float(np.ptp(early)) if early.size else 0.0


def _still_learns(training: Sequence[float], step: int, best_step: int) -> bool:
    """Whether the training loss before a step is lower than it was where the validation loss was best."""
    width = max(math.ceil(len(training) * SHARE_OF_STEPS), 1)
    now, then = (np.asarray(training[max(s + 1 - width, 0) : s + 1], dtype=float) for s in (step, best_step))
    return bool(now.size and then.size and step > best_step and np.median(now) < np.median(then))


def _step_of(validations: Sequence[Validation], loss: float) -> int:
    return next((v.step for v in validations if v.loss == loss), 0)


def _best(validations: Sequence[Validation]) -> float:
    return min((v.loss for v in validations if math.isfinite(v.loss)), default=math.inf)


def _meaningful(validations: Sequence[Validation], rules: OutcomeRules) -> Sequence[Validation]:
    """Validations whose loss is meaningful."""
    void = rules.meaningless.items()
    return [v for v in validations if not any(bound.holds(v.measures.get(name)) for name, bound in void)]


def _first_nonfinite(validations: Sequence[Validation], first_step: int | None) -> tuple[int, int | None] | None:
    """(step, last step known to be good) of the first non-finite value; None if there was none.

    A value of training is known to the step, one that shows only at a validation is not.
    """
    for before, now in itertools.pairwise([None, *validations]):
        if now is not None and not math.isfinite(now.loss) and (first_step is None or now.step < first_step):
            return now.step, None if before is None else before.step
    if first_step is None:
        return None
    return first_step, first_step - 1 if first_step else None


def _final_stretch(
    validations: Sequence[Validation], holds: Sequence[bool], least: int = 1
) -> tuple[int, int | None] | None:
    """(first step of the final unbroken stretch, step of the validation before it); None if too short."""
    length = sum(1 for _ in itertools.takewhile(bool, reversed(holds)))
    if length < least:
        return None
    start = len(holds) - length
    return validations[start].step, validations[start - 1].step if start else None
