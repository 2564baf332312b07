"""Outcomes from journals: what a program recorded is judged by the rules of its trial, now or again."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fnostab.record import names
from fnostab.record.journal import FILE_NAME, Event, Journal, read_journal
from fnostab.record.outcomes import FAILURES, Judgement, Outcome, Validation, judge
from fnostab.record.recorder import MEMORY_ERROR
from fnostab.record.trial import TrialSpec

__all__ = [
    "IGNORES_SEED",
    "Observed",
    "end_of_complete",
    "judge_again",
    "observe",
    "outcome_payload",
    "twin_seed",
    "write_end",
]

IGNORES_SEED = "the script ignores its seed"
BLOCKS = 20  # of steps, whose median training loss stands in for validations where there are none


@dataclass
class Observed:
    """What a journal holds of a training.

    Attributes:
        training: loss and gradient norm by step, both (steps,) with NaN for what was not recorded.
        validations: step -> metric -> value.
        announced: failure that the program saw by itself, with its step.
        nonfinite: how many values were NaN, and how many infinite.
        memory_error: what ran out of memory, in the program's words.
    """

    training: dict[int, tuple[float, float]] = field(default_factory=dict)
    validations: dict[int, dict[str, float]] = field(default_factory=dict)
    announced: tuple[Outcome, int] | None = None
    nonfinite: tuple[int, int] = (0, 0)
    scheduled_steps: int | None = None
    baseline: float | None = None
    memory_error: str | None = None

    @property
    def anything(self) -> bool:
        """Whether a step or a validation was recorded, or a failure announced."""
        return bool(self.training or self.validations or self.announced)

    @property
    def last_step(self) -> int:
        """Last recorded step, 0-based; -1 without one."""
        return max((*self.training, *self.validations), default=-1)

    @property
    def complete(self) -> bool:
        """Whether the last scheduled step was recorded."""
        return self.scheduled_steps is not None and self.last_step >= self.scheduled_steps - 1


def observe(directory: Path, spec: TrialSpec) -> Observed:
    """Read what a trial recorded, in all its attempts; the first record of a step counts.

    Raises:
        JournalError: the journal is damaged.
    """
    seen = Observed()
    judged, ends = spec.judged, {f"{spec.metric.name}_best", f"{spec.metric.name}_last"}  # the latter of `summary`
    for record, _ in read_journal(directory / FILE_NAME):
        if isinstance(record, Event):
            _take_event(seen, record)
            continue
        found = {**record.values, **{name: float(text) for name, text in record.nonfinite.items()}}
        values = {name: value for name, value in found.items() if name not in ends}
        nans = sum(math.isnan(v) for v in values.values())
        seen.nonfinite = (seen.nonfinite[0] + nans, seen.nonfinite[1] + len(record.nonfinite) - nans)
        if names.TRAIN_LOSS in values or names.GRAD_NORM in values:
            loss, norm = values.get(names.TRAIN_LOSS, math.nan), values.get(names.GRAD_NORM, math.nan)
            seen.training.setdefault(record.step, (loss, norm))
        if judged in values or any(name.startswith(names.VAL_PREFIX) for name in values):
            seen.validations.setdefault(record.step, {}).update(values)
        seen.baseline = values.get(names.CONSTANT_LOSS, seen.baseline)
    return seen


def judge_observed(seen: Observed, spec: TrialSpec) -> Judgement:
    """Judge a training that has come to its end, by the rules of its trial."""
    sign = -1.0 if spec.metric.higher_is_better else 1.0
    rules = spec.rules.turned() if spec.metric.higher_is_better else spec.rules
    validations = [
        Validation(step, sign * values[spec.judged], values)
        for step, values in sorted(seen.validations.items())
        if spec.judged in values
    ]
    training = [loss for _, (loss, _) in sorted(seen.training.items())]
    baseline = rules.baseline if rules.baseline is not None or seen.baseline is None else sign * seen.baseline
    note: tuple[str, ...] = ()
    if not validations and training:
        validations = _blocks(seen)
        baseline, training = None, []
        note = (f"exploded: on the training loss, no {spec.judged} was recorded",)
    last = seen.last_step if seen.scheduled_steps is None else max(seen.last_step, seen.scheduled_steps - 1)
    nonfinite = seen.announced[1] if seen.announced and seen.announced[0] is Outcome.NONFINITE else None
    judgement = judge(
        validations,
        first_nonfinite_step=nonfinite,
        last_step=max(last, 0),
        baseline=baseline,
        rules=rules,
        training=training,
    )
    judgement = replace(judgement, not_judged=(*judgement.not_judged, *note))
    if seen.announced is None or judgement.outcome is Outcome.NONFINITE:
        return judgement
    outcome, step = seen.announced  # the program's own word
    held = tuple(dict.fromkeys((outcome, *judgement.rules_held)))
    return replace(judgement, outcome=outcome, failure_step=step, known_good_step=None, rules_held=held)


def summary(seen: Observed, spec: TrialSpec, judgement: Judgement | None) -> dict[str, float]:
    """One number each of the whole training, as tables read them; finite ones only."""
    values = [v[spec.metric.name] for _, v in sorted(seen.validations.items()) if spec.metric.name in v]
    finite = [v for v in values if math.isfinite(v)]
    norms = np.array([norm for _, (_, norm) in sorted(seen.training.items()) if math.isfinite(norm)])
    failure_step = None if judgement is None else judgement.failure_step
    found = {
        names.NAN_EVENTS: float(seen.nonfinite[0]),
        names.INF_EVENTS: float(seen.nonfinite[1]),
        names.LAST_STEP: float(max(seen.last_step, 0)),
        names.TIME_TO_FAILURE: float(max(seen.last_step, 0) if failure_step is None else failure_step),
    }
    if finite:
        found[f"{spec.metric.name}_best"] = (max if spec.metric.higher_is_better else min)(finite)
    if values and math.isfinite(values[-1]):
        found[f"{spec.metric.name}_last"] = values[-1]
    if norms.size:
        late = norms[norms.size // 2 :]
        found |= {
            names.GRAD_P99_LAST_HALF: float(np.quantile(late, 0.99)),
            names.GRAD_MEDIAN_LAST_HALF: float(np.median(late)),
        }
    return found


def outcome_payload(outcome: Outcome, judgement: Judgement | None, **more: Any) -> dict[str, Any]:
    """The payload of an outcome event; ``more`` that has a value is added."""
    return {
        "outcome": str(outcome),
        "failure_step": judgement.failure_step if judgement else None,
        "known_good_step": judgement.known_good_step if judgement else None,
        "rules_held": [str(rule) for rule in judgement.rules_held] if judgement else [],
        "not_judged": list(judgement.not_judged) if judgement else [],
    } | {name: value for name, value in more.items() if value}


def write_end(journal: Journal, seen: Observed, spec: TrialSpec, outcome: Outcome | None, **more: Any) -> Outcome:
    """Write the summary of a program's trial, and its outcome last.

    Args:
        journal: of the trial.
        seen: what it holds.
        spec: of the trial.
        outcome: how the trial ended, where its training is not to be judged; a failure that was observed wins.
        more: for the outcome's payload, as ``reason``.
    """
    judgement = None
    if outcome is None or seen.announced:
        judgement = judge_observed(seen, spec)
        outcome = judgement.outcome
    journal.record(max(seen.last_step, 0), summary(seen, spec, judgement))
    journal.event(names.OUTCOME_EVENT, outcome_payload(outcome, judgement, **more))
    return outcome


def end_of_complete(journal: Journal, spec: TrialSpec) -> bool:
    """Judge a trial whose program came to its last step, or saw a failure, without its supervisor; whether it did."""
    seen = observe(journal.directory, spec)
    if not (seen.complete or seen.announced):
        return False
    write_end(journal, seen, spec, None)
    return True


def judge_again(directory: Path, spec: TrialSpec) -> None:
    """Judge a training that has ended by the rules that its trial has now; another outcome goes into its journal.

    Raises:
        JournalError: another process holds the journal, or it is damaged or can't be written.
    """
    last = [r for r, _ in read_journal(directory / FILE_NAME) if isinstance(r, Event) and r.name == names.OUTCOME_EVENT]
    judgement = judge_observed(observe(directory, spec), spec)
    payload = outcome_payload(judgement.outcome, judgement)
    if not last or any(last[-1].payload.get(name) != payload[name] for name in ("outcome", "failure_step")):
        with Journal(directory) as journal:
            journal.event(names.OUTCOME_EVENT, payload)


def twin_seed(directory: Path, spec: TrialSpec, seen: Observed) -> int | None:
    """Another seed of the same arm with the very same values: the program ignores its seed. None if there is none."""
    if len(seen.training) + len(seen.validations) < 2:
        return None
    for path in sorted(directory.parent.glob(f"{spec.arm}-*/trial.json")):
        other = TrialSpec.read(path)
        same_arm = (other.arm, other.config_hash) == (spec.arm, spec.config_hash) and other.seed != spec.seed
        if same_arm and (path.parent / FILE_NAME).exists():
            theirs = observe(path.parent, other)
            if (theirs.training, theirs.validations) == (seen.training, seen.validations):
                return other.seed
    return None


def _take_event(seen: Observed, event: Event) -> None:
    payload = event.payload
    if event.name == names.STARTED_EVENT:
        seen.scheduled_steps = payload.get("scheduled_steps") or seen.scheduled_steps
    elif event.name == names.TAGS_EVENT:
        seen.memory_error = payload.get(MEMORY_ERROR, seen.memory_error)
        if names.OWNER in payload:
            seen.memory_error = None  # of an attempt before
        if payload.get(names.OUTCOME) in FAILURES and seen.announced is None:
            seen.announced = Outcome(payload[names.OUTCOME]), int(payload.get(names.FAILURE_STEP, 0))


def _blocks(seen: Observed) -> list[Validation]:
    """Median training loss of each of some blocks of steps."""
    steps = sorted(seen.training)
    losses = np.array([seen.training[step][0] for step in steps])
    blocks = np.array_split(np.arange(len(steps)), min(BLOCKS, len(steps)))
    return [Validation(steps[block[-1]], float(np.median(losses[block]))) for block in blocks if block.size]
