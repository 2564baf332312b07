"""Outcomes of trials and the rules that decide them.

A rule holds or does not hold at each validation of a trial; `nonfinite` depends on the first
non-finite step. The outcome is judged at the end, on the final weights: a run that met a rule and
recovered did not fail.
"""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from fnostab.record import names
from fnostab.record.explosion import exploded_at, explosion_at_end
from fnostab.record.outcome_rules import Bound, OutcomeRules, Validation

COMPLETE = 0.9  # fraction of the scheduled steps, since not every step need be recorded
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")  # and other terminal control sequences


class Outcome(StrEnum):
    """Outcome of a trial; its value is the MLflow tag ``fnostab.outcome``."""

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


@dataclass(frozen=True)
class Judgement:
    """Outcome of a trial with its evidence.

    Attributes:
        outcome: rule of the highest precedence that held, or ``converged``.
        failure_step: 0-based optimiser step of the failure; None if it did not fail.
        known_good_step: last step before the failure began, so that its time lies in
            ``(known_good_step, failure_step]``; None if it did not fail or failed from the start.
        rules_held: every rule that held, in order of precedence.
        not_judged: outcomes that could not be judged, each with its reason.
    """

    outcome: Outcome
    failure_step: int | None = None
    known_good_step: int | None = None
    rules_held: tuple[Outcome, ...] = ()
    not_judged: tuple[str, ...] = ()


def stopped_short(last_step: int | None, scheduled_steps: int | None) -> bool:
    """Whether the last recorded step, 0-based, lies well before the last scheduled one."""
    return last_step is not None and scheduled_steps is not None and last_step + 1 < COMPLETE * scheduled_steps


def outcome_payload(
    judgement: Judgement | None, reason: str | None = None, *, requested: bool = False
) -> dict[str, Any]:
    """Payload of the event that ends an attempt at a trial.

    Args:
        judgement: outcome and evidence; None for a script's run without a known outcome.
        reason: explanation of an outcome that is not a training outcome, or of what ended a failed training.
        requested: whether the process was asked to end, so that the trial is not to blame.
    """
    evidence = judgement or Judgement(Outcome.RUNNING)
    return {
        "outcome": None if judgement is None else str(judgement.outcome),
        "failure_step": evidence.failure_step,
        "known_good_step": evidence.known_good_step,
        "rules_held": [str(rule) for rule in evidence.rules_held],
        "not_judged": list(evidence.not_judged),
        "reason": None if reason is None else _printable(reason)[: names.LONGEST_REASON],
        **({"requested": True} if requested else {}),
    }


def _printable(text: str) -> str:
    """Remove control characters and colours, which would reach the reader's terminal."""
    return "".join(c for c in _COLOUR.sub("", text) if c.isprintable() or c == "\n")


def judge(
    validations: Sequence[Validation],
    *,
    first_nonfinite_step: int | None,
    last_step: int,
    baseline: float | None,
    rules: OutcomeRules,
    training: Sequence[float] = (),
) -> Judgement:
    """Judge an ended trial in which something was observed.

    Args:
        validations: in chronological order.
        first_nonfinite_step: 0-based step of the first non-finite loss, gradient or output.
        last_step: last scheduled optimiser step, 0-based, at which a run is known to have stagnated.
        baseline: validation loss of an untrained output; None if unknown.
        rules: rules of failures.
        training: training losses by step, (steps,); NaN where none was recorded.
    """
    held: dict[Outcome, tuple[int, int | None]] = {}
    not_judged = []
    seen = {name for v in validations for name in v.measures}

    if first := _first_nonfinite(validations, first_nonfinite_step):
        held[Outcome.NONFINITE] = first
    if not seen & rules.collapsed.keys():
        measures = " or ".join(sorted(rules.collapsed)) or "a measure of the output's spread"
        not_judged.append(f"collapsed: needs {measures}")
    elif stretch := _final_stretch(
        validations,
        _any_holds_at(rules.collapsed, validations, in_a_row=True),
        begun=_any_holds_at(rules.collapsed, validations),
    ):
        held[Outcome.COLLAPSED] = stretch
    least = 3 if baseline is None or rules.exploded_vs_baseline is None else 2  # own progress starts at the first
    if len(validations) < least:
        not_judged.append(f"exploded: needs {'two' if least == 2 else 'three'} validations")
    elif stretch := _final_stretch(validations, exploded_at(validations, baseline, rules, training), least=2):
        held[Outcome.EXPLODED] = stretch
    if not validations:
        not_judged.append("stagnated: needs a validation")
    else:
        if stretch := _stagnated(validations, last_step, baseline, rules):
            held[Outcome.STAGNATED] = stretch
        if baseline is None and rules.failed is None and not seen & rules.stagnated.keys():
            not_judged.append("stagnated: the loss of an output that has learnt nothing is unknown")
        if unseen := sorted(rules.stagnated.keys() - seen):
            not_judged.append(f"stagnated: by the loss alone, needs {' and '.join(unseen)}")

    by_precedence = tuple(outcome for outcome in FAILURES if outcome in held)
    if not by_precedence:
        return Judgement(Outcome.CONVERGED, not_judged=tuple(not_judged))
    failure_step, known_good_step = held[by_precedence[0]]
    return Judgement(by_precedence[0], failure_step, known_good_step, by_precedence, tuple(not_judged))


def with_exploded(judgement: Judgement, failure_step: int | None, known_good_step: int | None) -> Judgement:
    """Return a judgement in which ``exploded`` holds as well."""
    held = tuple(rule for rule in FAILURES if rule in (*judgement.rules_held, Outcome.EXPLODED))
    judgement = replace(judgement, rules_held=held)
    if held[0] is Outcome.EXPLODED:
        judgement = replace(judgement, outcome=held[0], failure_step=failure_step, known_good_step=known_good_step)
    return judgement


def judge_end(
    judgement: Judgement,
    validations: Sequence[Validation],
    rules: OutcomeRules,
    training: Sequence[float],
    last_step: int,
) -> Judgement:
    """Add ``exploded`` where the training loss exploded after the last validation; see `explosion_at_end`.

    Rules with thresholds of their own judge validations only. ``last_step`` is the last scheduled one.
    """
    by_thresholds = rules.exploded_vs_best is not None or rules.exploded_vs_baseline is not None
    if by_thresholds or Outcome.EXPLODED in judgement.rules_held:
        return judgement
    short = stopped_short(len(training) - 1, last_step + 1)
    if (explosion := explosion_at_end(validations, training, stopped_short=short)) is None:
        return judgement
    not_judged = tuple(line for line in judgement.not_judged if not line.startswith("exploded:"))
    return with_exploded(replace(judgement, not_judged=not_judged), *explosion)


def ends_early(validations: Sequence[Validation], rules: OutcomeRules) -> bool:
    """Whether a rule with ``ends_early`` holds at the last validation; NaN does not end a trial early."""
    judged = [(bound, [v.measures.get(name) for v in validations]) for name, bound in rules.collapsed.items()]
    if rules.failed is not None:
        judged.append((rules.failed, [v.loss for v in validations]))
    return any(
        bound.ends_early and any(bound.holds_at(values)[-1:]) and not any(map(_is_nan, values[-bound.validations :]))
        for bound, values in judged
    )


def looks_failed(validations: Sequence[Validation], baseline: float | None, rules: OutcomeRules) -> bool:
    """Whether the last validation looks like the start of a failure."""
    if not validations:
        return False
    last = validations[-1]
    return (
        not math.isfinite(last.loss)
        or _any_holds(rules.collapsed, last)
        or exploded_at(validations, baseline, rules)[-1]
    )


def _stagnated(
    validations: Sequence[Validation], last_step: int, baseline: float | None, rules: OutcomeRules
) -> tuple[int, int | None] | None:
    """(step of failure, last step known to be good) by the first rule of `stagnated` that holds; None without one."""
    if rules.failed is not None:
        losses = [v.loss for v in validations]
        begun = [rules.failed.holds(loss) for loss in losses]
        if stretch := _final_stretch(validations, rules.failed.holds_at(losses), begun=begun):
            return stretch
    if baseline is not None and not _has_learnt(_loss_that_counts(validations, rules), baseline, rules):
        return last_step, None
    holds = _any_holds_at(rules.stagnated, validations)
    return (last_step, None) if all(holds) else _final_stretch(validations, holds)


def _has_learnt(loss: float, baseline: float, rules: OutcomeRules) -> bool:
    if rules.stagnated_vs_baseline is not None:
        return loss <= rules.stagnated_vs_baseline * baseline
    return loss < baseline


def _loss_that_counts(validations: Sequence[Validation], rules: OutcomeRules) -> float:
    """Best or last loss, by ``rules.of``; Inf if not finite or if ``rules.meaningless`` holds."""
    counted = validations if rules.of == "best" else validations[-1:]
    meaningful = [v.loss for v in counted if not _any_holds(rules.meaningless, v)]
    return min(filter(math.isfinite, meaningful), default=math.inf)


def _any_holds(bounds: Mapping[str, Bound], validation: Validation) -> bool:
    return any(bound.holds(validation.measures.get(name)) for name, bound in bounds.items())


def _any_holds_at(
    bounds: Mapping[str, Bound], validations: Sequence[Validation], *, in_a_row: bool = False
) -> list[bool]:
    """Whether any bound holds at each validation; a missing measure takes its previous value."""
    held = []
    for name, bound in bounds.items():
        values = [v.measures.get(name) for v in validations]
        taken = [value for value in values if value is not None]
        at_taken = iter(bound.holds_at(taken) if in_a_row else [bound.holds(value) for value in taken])
        latest, of_bound = False, []
        for value in values:
            latest = latest if value is None else next(at_taken)
            of_bound.append(latest)
        held.append(of_bound)
    return [any(each) for each in zip(*held, strict=True)] or [False] * len(validations)


def _is_nan(value: float | None) -> bool:
    return value is not None and math.isnan(value)


def _first_nonfinite(validations: Sequence[Validation], first_step: int | None) -> tuple[int, int | None] | None:
    """(step, last step known to be good) of the first non-finite value; None if there was none.

    The step is exact for a training value, but not for one seen only at a validation.
    """
    for before, now in itertools.pairwise([None, *validations]):
        if now is not None and not math.isfinite(now.loss) and (first_step is None or now.step < first_step):
            return now.step, None if before is None else before.step
    if first_step is None:
        return None
    return first_step, first_step - 1 if first_step else None


def _final_stretch(
    validations: Sequence[Validation], holds: Sequence[bool], least: int = 1, begun: Sequence[bool] = ()
) -> tuple[int, int | None] | None:
    """(first step of the final unbroken stretch, last step known to be good); None if too short.

    Args:
        validations: (n,).
        holds: whether the rule holds at each validation, (n,).
        least: shortest stretch that counts.
        begun: for a rule that needs several validations in a row, whether each is one of these, (n,).
    """
    length = sum(1 for _ in itertools.takewhile(bool, reversed(holds)))
    if length < least:
        return None
    start = len(holds) - length
    good = start - 1
    while begun and good >= 0 and begun[good]:
        good -= 1
    return validations[start].step, validations[good].step if good >= 0 else None
