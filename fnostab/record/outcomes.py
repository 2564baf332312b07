"""Outcomes of trials, and the rules that decide them.

A rule holds or does not hold at each validation of a trial; `nonfinite` goes by its first non-finite
step. The outcome is judged at the end, on the final weights: a run that met a rule and recovered did
not fail. Rules are data: a task or a study file gives them, the record of a trial holds them, and a
trial that has ended can be judged again by others.

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
from numpy.typing import NDArray
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
    "collapsed_at",
    "ends_early",
    "exploded_at",
    "judge",
    "looks_failed",
]

SHARE_OF_STEPS = 0.1  # over which a level of the training loss is taken
LEAST_STEPS = 8  # the same, of a short training
WITHOUT_TRAINING = 10  # times its progress, a loss has exploded of which no training loss is known


class Outcome(StrEnum):
    """Outcome of a trial; its value is that of the MLflow tag ``fnostab.outcome``."""

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
    """A bound on a value: it holds above or below a number, at so many validations in a row."""

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
        """Whether the bound holds for a value; False for NaN, and for None, which was not measured."""
        if value is None:
            return False
        return value > self.above if self.above is not None else value < (self.below or 0.0)

    def holds_at(self, values: Sequence[float | None]) -> list[bool]:
        """Whether the bound holds at each value, and held at as many before it as ``validations`` asks for."""
        held = [self.holds(value) for value in values]
        n = self.validations
        return [i + 1 >= n and all(held[i + 1 - n : i + 1]) for i in range(len(held))]

    def turned(self) -> "Bound":
        """The same bound for the negative of the value."""
        above, below = (None if edge is None else -edge for edge in (self.below, self.above))
        return self.model_copy(update={"above": above, "below": below})


class OutcomeRules(Frozen):
    """Rules of failures, as data.

    They are about a loss, of which lower is better. For a metric of which higher is better, `judge` is given its
    negative, and `turned` rules.
    """

    baseline: float | None = None  # what an output that has learnt nothing gets
    failed: Bound | None = None  # of the metric, at the last validation: stagnated
    collapsed: dict[str, Bound] = Field(default={})  # measures of the output: any of them
    meaningless: dict[str, Bound] = Field(default={})  # measures at which a good loss proves nothing
    # Shares and multiples, for losses that are above zero; without them the trial's own progress is the scale
    stagnated_vs_baseline: Annotated[float, Field(gt=0)] | None = None
    exploded_vs_baseline: Annotated[float, Field(gt=0)] | None = None
    exploded_vs_best: Annotated[float, Field(gt=0)] | None = None

    def turned(self) -> "OutcomeRules":
        """The same rules for the negative of a metric of which higher is better.

        Shares and multiples are left out: they mean nothing for losses below zero.
        """
        return OutcomeRules(
            baseline=None if self.baseline is None else -self.baseline,
            failed=None if self.failed is None else self.failed.turned(),
            collapsed=self.collapsed,
            meaningless=self.meaningless,
        )


@dataclass(frozen=True)
class Validation:
    """One validation of a trial.

    Attributes:
        step: 0-based optimiser step after which it took place.
        loss: the monitored validation loss; NaN and Inf are accepted.
        measures: other measures of the output, by metric name.
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
        not_judged: outcomes that could not be judged, each with its reason.
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
        training: training losses by step, (steps,); NaN where none was recorded.
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
    elif baseline is not None and validations:
        if not _has_learnt(_best(_meaningful(validations, rules)), baseline, rules):
            held[Outcome.STAGNATED] = (last_step, None)
    elif not validations:
        not_judged.append("stagnated: needs a validation")
    elif rules.failed is None:
        not_judged.append("stagnated: the loss of an output that has learnt nothing is unknown")

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
    """Whether a rule with ``ends_early`` holds at the last validation."""
    judged = [(bound, [v.measures.get(name) for v in validations]) for name, bound in rules.collapsed.items()]
    if rules.failed is not None:
        judged.append((rules.failed, [v.loss for v in validations]))
    return any(bound.ends_early and any(bound.holds_at(values)[-1:]) for bound, values in judged)


def exploded_at(
    validations: Sequence[Validation], baseline: float | None, rules: OutcomeRules, training: Sequence[float] = ()
) -> list[bool]:
    """Whether the loss at each validation is far above where the trial began, or above its own best so far.

    Measured by shares of the baseline and multiples of the best, where the rules give them. Else by the trial's own
    progress, which does not change if a constant is added to every loss: see `_has_lost_all`.

    Args:
        validations: in the order in which they took place.
        baseline: validation loss of an output that has learnt nothing; None if unknown.
        rules: what counts as a failure.
        training: training losses by step, (steps,); NaN where none was recorded.
    """
    best: list[Validation] = []
    for v in validations:
        best.append(v if not best or _loss_of(v) < _loss_of(best[-1]) else best[-1])
    if rules.exploded_vs_best is None and rules.exploded_vs_baseline is None:
        return _has_lost_all(validations, best, baseline, np.asarray(training, dtype=float))
    limit = math.inf
    if baseline is not None and rules.exploded_vs_baseline is not None:
        limit = rules.exploded_vs_baseline * baseline
    factor = rules.exploded_vs_best
    exploded = []
    for v, so_far in zip(validations, best, strict=True):
        of_best = math.inf if factor is None or not 0 <= _loss_of(so_far) < math.inf else factor * so_far.loss
        exploded.append(not v.loss <= min(limit, of_best))
    return exploded


def _has_lost_all(
    validations: Sequence[Validation],
    best: Sequence[Validation],
    baseline: float | None,
    training: NDArray[np.float64],
) -> list[bool]:
    """Whether the trial, at each validation, has lost all that it had learnt, and as much again.

    The loss then lies as far above the start as the best so far lies below it. The start is the first validation; with
    a baseline it is the baseline or, until something better is reached, the best so far. If the training loss varied
    more than that distance over its first tenth, its range takes the place of the distance. If no training loss is
    recorded, nothing tells progress from noise, and ten times the distance is needed. A validation loss that rises
    while the training loss still falls is overfitting, and does not count.
    """
    early = _early_range(training)
    first = next((v.loss for v in validations if math.isfinite(v.loss)), math.inf)
    exploded = []
    for v, so_far in zip(validations, best, strict=True):
        least = _loss_of(so_far)
        start = first if baseline is None else max(baseline, least)
        distance = max(start - least, early) if early is not None else WITHOUT_TRAINING * (start - least)
        risen = distance > 0 and v.loss > start + distance
        exploded.append(not math.isfinite(v.loss) or (risen and not _still_learns(training, v.step, so_far.step)))
    return exploded


def looks_failed(validations: Sequence[Validation], baseline: float | None, rules: OutcomeRules) -> bool:
    """Whether the last validation looks like the beginning of a failure."""
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
    return best < baseline


def _loss_of(validation: Validation) -> float:
    """Loss of a validation; infinite where it is not finite."""
    return validation.loss if math.isfinite(validation.loss) else math.inf


def _early_range(training: NDArray[np.float64]) -> float | None:
    """Range of the training loss over its first tenth, from the 10 % to the 90 % quantile; None if it is unknown."""
    early = training[: _tenth(training)]
    early = early[np.isfinite(early)]
    return float(np.diff(np.quantile(early, [0.1, 0.9]))[0]) if early.size > 1 else None


def _still_learns(training: NDArray[np.float64], step: int, best_step: int) -> bool:
    """Whether the training loss before a step is lower than it was where the validation loss was best."""
    width = _tenth(training)
    now, then = (training[max(s + 1 - width, 0) : s + 1] for s in (step, best_step))
    now, then = now[~np.isnan(now)], then[~np.isnan(then)]
    return bool(now.size and then.size and step > best_step and np.median(now) < np.median(then))


def _tenth(training: NDArray[np.float64]) -> int:
    return max(math.ceil(len(training) * SHARE_OF_STEPS), LEAST_STEPS)


def _best(validations: Sequence[Validation]) -> float:
    return min((v.loss for v in validations if math.isfinite(v.loss)), default=math.inf)


def _meaningful(validations: Sequence[Validation], rules: OutcomeRules) -> Sequence[Validation]:
    """Validations at which a good loss proves something, by ``rules.meaningless``."""
    void = rules.meaningless.items()
    return [v for v in validations if not any(bound.holds(v.measures.get(name)) for name, bound in void)]


def _first_nonfinite(validations: Sequence[Validation], first_step: int | None) -> tuple[int, int | None] | None:
    """(step, last step known to be good) of the first non-finite value; None if there was none.

    The step of a training value is known exactly; that of a value seen only at a validation is not.
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
