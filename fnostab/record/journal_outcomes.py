"""Judge a trial by its journal alone, under the rules in its trial.json.

For trials whose program does not judge itself. Points of all attempts count, since a retry does not record
earlier steps again; an announced failure counts only for its own attempt.
"""

import itertools
import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fnostab.record import names
from fnostab.record.journal import read_journal
from fnostab.record.lines import FILE_NAME, Event, Point
from fnostab.record.outcome_rules import Validation
from fnostab.record.outcomes import FAILURES, Judgement, Outcome, judge, judge_end, with_exploded
from fnostab.record.program_journal import RECORDED_EVENT
from fnostab.record.trial import TrialSpec

BLOCKS = 20  # of the training loss, if no validation was recorded
LONGEST_CURVE = 5_000_000  # most steps to which a training loss is expanded


@dataclass
class Recorded:
    """Records of a training, read from its journal.

    Attributes:
        curves: values by step for each metric, including NaN and Inf.
        scheduled_steps: number of steps that the last attempt announced.
        announced: first failure that the last attempt announced, with its step.
        by_rules: whether that failure was judged by the rules of the time, so that other rules may change it.
        seen: ``oom``, ``killed`` or ``infra_error``, and the exception by which the last attempt's recorder or monitor
            saw the training end.
        complete: whether the last attempt closed its recorder.
    """

    curves: dict[str, dict[int, float]] = field(default_factory=dict)
    scheduled_steps: int | None = None
    announced: tuple[Outcome, int] | None = None
    by_rules: bool = False
    seen: tuple[Outcome, str] | None = None
    complete: bool = False

    @property
    def last_step(self) -> int | None:
        """Last recorded step; None if there is none."""
        return max((max(curve) for curve in self.curves.values()), default=None)

    @property
    def reached_the_end(self) -> bool:
        """Whether the last scheduled step was recorded; False if the schedule is unknown."""
        return self.scheduled_steps is not None and (self.last_step or 0) >= self.scheduled_steps - 1

    @property
    def first_nonfinite_step(self) -> int | None:
        """First step at which the training loss or gradient norm was not finite, or was announced as such.

        An announcement at a validation is left out: the validations tell since when the loss may have been so.
        """
        steps = [
            step
            for name in (names.TRAIN_LOSS, names.GRAD_NORM)
            for step, value in self.curves.get(name, {}).items()
            if not math.isfinite(value)
        ]
        if self.announced is not None and self.announced[0] is Outcome.NONFINITE:
            step = self.announced[1]
            if math.isfinite(self.curves.get(f"{names.VAL_PREFIX}loss", {}).get(step, 0.0)):
                steps.append(step)
        return min(steps, default=None)


def read_recorded(directory: Path) -> Recorded:
    """Read the records of a trial.

    Raises:
        JournalError: its journal is missing or damaged.
    """
    recorded = Recorded()
    for record, _ in read_journal(directory / FILE_NAME):
        if isinstance(record, Point):
            recorded.seen = None  # the training went on
            for name, value in {**record.values, **{n: float(text) for n, text in record.nonfinite.items()}}.items():
                recorded.curves.setdefault(name, {}).setdefault(record.step, value)
        else:
            _take_event(recorded, record)
    return recorded


def judge_recorded(recorded: Recorded, spec: TrialSpec) -> tuple[Judgement | None, dict[str, float]]:
    """Judge an ended trial by its records and by the rules and metric of its spec.

    Returns:
        The judgement, None if nothing was observed, and the summary of the training: its finite values by metric.
    """
    observed = any(name in recorded.curves for name in (names.TRAIN_LOSS, names.GRAD_NORM, spec.judged))
    if not observed and recorded.announced is None:
        return None, {}
    judgement = _judge(recorded, spec)
    if recorded.announced is not None and recorded.announced[0] is not judgement.outcome:
        outcome, step = recorded.announced
        held = tuple(rule for rule in FAILURES if rule is outcome or rule in judgement.rules_held)
        judgement = replace(judgement, outcome=outcome, failure_step=step, known_good_step=None, rules_held=held)
    return judgement, _summary(recorded, spec, judgement)


def unrecorded_of_rules(recorded: Recorded, spec: TrialSpec) -> list[str]:
    """Names of metrics that the outcome rules need and the trial did not record; without them no trial succeeds."""
    rules = spec.rules
    judged = {*rules.measures}
    if rules.baseline is not None or rules.failed is not None:
        judged.add(spec.judged)
    return sorted(judged - recorded.curves.keys())


def observed_failure(recorded: Recorded, judgement: Judgement | None) -> Judgement | None:
    """Judgement that stands whatever ended the process later (announced, or not finite); None otherwise."""
    if judgement is not None and (recorded.announced is not None or judgement.outcome is Outcome.NONFINITE):
        return judgement
    return None


def _take_event(recorded: Recorded, event: Event) -> None:
    payload = event.payload
    if event.name == names.STARTED_EVENT:
        recorded.scheduled_steps = payload.get("scheduled_steps")
    elif event.name == RECORDED_EVENT:
        recorded.complete = True
    elif event.name == names.TAGS_EVENT:
        if names.OWNER in payload:  # an attempt begins
            recorded.scheduled_steps = recorded.announced = recorded.seen = None
            recorded.complete = False
        outcome = payload.get(names.OUTCOME)
        if outcome in FAILURES and names.FAILURE_STEP in payload:
            if recorded.announced is None:
                recorded.announced = Outcome(outcome), int(payload[names.FAILURE_STEP])
                recorded.by_rules = names.RULES_HELD in payload
        elif outcome is not None:
            recorded.seen = Outcome(outcome), payload.get(names.REASON, "")


def _judge(recorded: Recorded, spec: TrialSpec) -> Judgement:
    turned = spec.metric.higher_is_better and spec.metric.name == spec.judged
    sign = -1.0 if turned else 1.0
    training = _spread(recorded.curves.get(names.TRAIN_LOSS, {}))
    judged = sorted(recorded.curves.get(spec.judged, {}).items())
    steps = [step for step, _ in judged]
    ruled = recorded.curves.keys() & spec.rules.measures
    measures = {name: _at_validations(recorded.curves[name], steps) for name in ruled}
    validations = [
        Validation(step, sign * loss, {name: values[step] for name, values in measures.items() if step in values})
        for step, loss in judged
    ]
    last_step = max(recorded.last_step or 0, (recorded.scheduled_steps or 1) - 1)
    if not validations:
        return judge_end(_judge_training(recorded, spec, last_step), (), spec.rules, training, last_step)
    baseline = spec.rules.baseline
    if baseline is None and names.CONSTANT_LOSS in recorded.curves:
        baseline = next(iter(recorded.curves[names.CONSTANT_LOSS].values()))
    judgement = judge(
        validations,
        first_nonfinite_step=recorded.first_nonfinite_step,
        last_step=last_step,
        baseline=None if baseline is None else sign * baseline,
        rules=spec.rules.turned() if turned else spec.rules,
        training=() if turned else training,  # a loss and a score have no common scale
    )
    if len(validations) < 3 and spec.rules.exploded_vs_baseline is None:
        judgement = _by_training(judgement, _judge_training(recorded, spec, last_step))
    if turned:  # any score ends what only the training loss tells
        validations = [replace(v, loss=-math.inf) for v in validations]
    return judge_end(judgement, validations, spec.rules, training, last_step)


def _by_training(judgement: Judgement, by_training: Judgement) -> Judgement:
    """Judge ``exploded`` by the training loss where there are too few validations."""
    others = [line for line in judgement.not_judged if not line.startswith("exploded:")]
    exploded = [line for line in by_training.not_judged if line.startswith("exploded:")]
    judgement = replace(judgement, not_judged=(*others, *exploded))
    if Outcome.EXPLODED not in by_training.rules_held:
        return judgement
    return with_exploded(judgement, by_training.failure_step, by_training.known_good_step)


def _at_validations(curve: dict[int, float], steps: Sequence[int]) -> dict[int, float]:
    """Newest value of a measure since the previous validation, by step; the last validation takes later ones too."""
    found = {}
    for step in sorted(curve) if steps else ():
        found[steps[min(bisect_left(steps, step), len(steps) - 1)]] = curve[step]
    return found


def _judge_training(recorded: Recorded, spec: TrialSpec, last_step: int) -> Judgement:
    """Judge a trial without validations: ``exploded`` by its training loss."""
    training = recorded.curves.get(names.TRAIN_LOSS, {})
    rules = spec.rules.model_copy(update={"baseline": None, "failed": None, "exploded_vs_baseline": None})
    blocks = _blocks(training)
    judgement = judge(
        blocks,
        first_nonfinite_step=recorded.first_nonfinite_step,
        last_step=last_step,
        baseline=None,
        rules=rules,
        training=_spread(training),
    )
    not_judged = [line for line in judgement.not_judged if not line.startswith("stagnated:")]
    if len(blocks) >= 3:
        why = f"fewer than three {spec.judged} were" if spec.judged in recorded.curves else f"no {spec.judged} was"
        not_judged.append(f"exploded: on medians of {names.TRAIN_LOSS}, {why} recorded")
    return replace(judgement, not_judged=(*not_judged, f"stagnated: no {spec.judged} was recorded"))


def _blocks(training: dict[int, float]) -> list[Validation]:
    """Validations made from the training loss: medians of BLOCKS blocks, or fewer if there are fewer finite values."""
    steps = sorted(step for step, loss in training.items() if math.isfinite(loss))
    count = min(BLOCKS, len(steps))
    edges = [len(steps) * i // count for i in range(count + 1)] if count else [0]
    blocks = [steps[start:end] for start, end in itertools.pairwise(edges)]
    return [Validation(block[-1], float(np.median([training[step] for step in block]))) for block in blocks]


def _spread(training: dict[int, float]) -> Sequence[float]:
    """Training loss at every step, (steps,): the last value recorded up to that step."""
    if not training or max(training) >= LONGEST_CURVE:
        return ()
    curve, latest = [], training[min(training)]
    for step in range(max(training) + 1):
        latest = training.get(step, latest)
        curve.append(latest)
    return curve


def _summary(recorded: Recorded, spec: TrialSpec, judgement: Judgement) -> dict[str, float]:
    last_step = recorded.last_step or 0
    values = {
        names.LAST_STEP: float(last_step),
        names.TIME_TO_FAILURE: float(last_step if judgement.failure_step is None else judgement.failure_step),
        **_nonfinite_events(recorded),
    }
    norms = [norm for _, norm in sorted(recorded.curves.get(names.GRAD_NORM, {}).items()) if math.isfinite(norm)]
    if late := norms[len(norms) // 2 :]:
        values[names.GRAD_P99_LAST_HALF] = float(np.quantile(late, 0.99))
        values[names.GRAD_MEDIAN_LAST_HALF] = float(np.median(late))
    metric = recorded.curves.get(spec.metric.name)
    if metric and spec.metric.of is not None:
        best = max if spec.metric.higher_is_better else min
        values[f"{spec.metric.name}_best"] = best(filter(math.isfinite, metric.values()), default=math.nan)
        values[f"{spec.metric.name}_last"] = metric[max(metric)]
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _nonfinite_events(recorded: Recorded) -> dict[str, float]:
    """Numbers of steps at which the training loss or gradient norm was NaN or infinite."""
    nan, infinite = set(), set()
    for name in (names.TRAIN_LOSS, names.GRAD_NORM):
        for step, value in recorded.curves.get(name, {}).items():
            nan |= {step} if math.isnan(value) else set()
            infinite |= {step} if math.isinf(value) else set()
    return {names.NAN_EVENTS: float(len(nan)), names.INF_EVENTS: float(len(infinite))}
