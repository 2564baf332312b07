"""What became of a trial, and the rules that say so.

A rule looks at the validations of one trial (and at its first non-finite step) and answers whether
it holds at each of them. The outcome is judged at the end, on the final weights: a run that met a
rule and recovered did not fail. The thresholds and the runs that they were chosen on are in
docs/outcomes.md.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from fnostab.ptychography.settings import MonitorConfig

__all__ = [
    "EXCLUDED",
    "FAILURES",
    "TRAINING_OUTCOMES",
    "Judgement",
    "Outcome",
    "Validation",
    "judge",
    "looks_failed",
]


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


@dataclass(frozen=True)
class Validation:
    """One validation of a trial.

    Attributes:
        step: 0-based optimiser step after which it took place.
        loss: the monitored validation loss; NaN and Inf are accepted.
        amplitude_spread: standard deviation of the stitched, mean-matched predicted amplitude,
            divided by the truth's; None if there is no truth.
        patch_variation: standard deviation from patch to patch of the predicted amplitude, divided
            by its mean; None if it was not measured.
        twin_share: share of the patches that are nearer to the truth's twin image than to the truth; None if
            there is no truth.
    """

    step: int
    loss: float
    amplitude_spread: float | None = None
    patch_variation: float | None = None
    twin_share: float | None = None


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
    constant_loss: float | None,
    rules: MonitorConfig,
) -> Judgement:
    """Judge a trial that has ended.

    Args:
        validations: in the order in which they took place.
        first_nonfinite_step: 0-based step of the first non-finite loss, gradient or output.
        last_step: last scheduled optimiser step, 0-based: when a stagnated run is known to be one.
        constant_loss: validation loss of the best constant output; None if unknown.
        rules: thresholds.
    """
    held: dict[Outcome, tuple[int, int | None]] = {}
    not_judged = []

    if first := _first_nonfinite(validations, first_nonfinite_step):
        held[Outcome.NONFINITE] = first
    if not any(v.amplitude_spread is not None or v.patch_variation is not None for v in validations):
        not_judged.append("collapsed: no reconstruction was compared with a truth")
    elif stretch := _final_stretch(validations, collapsed_at(validations, rules)):
        held[Outcome.COLLAPSED] = stretch
    if len(validations) < 2:
        not_judged.append("exploded: needs two validations")
    elif stretch := _final_stretch(validations, exploded_at(validations, constant_loss, rules), least=2):
        held[Outcome.EXPLODED] = stretch
    if constant_loss is None or not validations:
        missing = "the constant output's loss is unknown" if constant_loss is None else "needs a validation"
        not_judged.append(f"stagnated: {missing}")
    elif not _best(_of_no_twin(validations, rules)) <= rules.stagnated_vs_constant * constant_loss:
        held[Outcome.STAGNATED] = (last_step, None)

    by_precedence = tuple(outcome for outcome in FAILURES if outcome in held)
    if not by_precedence:
        return Judgement(Outcome.CONVERGED, not_judged=tuple(not_judged))
    failure_step, known_good_step = held[by_precedence[0]]
    return Judgement(by_precedence[0], failure_step, known_good_step, by_precedence, tuple(not_judged))


def collapsed_at(validations: Sequence[Validation], rules: MonitorConfig) -> list[bool]:
    """Whether the output is constant at each validation.

    Either the stitched amplitude has too little spread, or all patches look alike for the second
    validation running.
    """
    alike = patches_alike_at(validations, rules)
    flat = [v.amplitude_spread is not None and v.amplitude_spread < rules.collapsed_spread for v in validations]
    return [is_flat or is_alike for is_flat, is_alike in zip(flat, alike, strict=True)]


def patches_alike_at(validations: Sequence[Validation], rules: MonitorConfig) -> list[bool]:
    """Whether the patch-variation rule holds: below its threshold at this validation and the one before."""
    below = [v.patch_variation is not None and v.patch_variation < rules.collapsed_patch_variation for v in validations]
    return [now and before for now, before in zip(below, [False, *below[:-1]], strict=True)]


def exploded_at(validations: Sequence[Validation], constant_loss: float | None, rules: MonitorConfig) -> list[bool]:
    """Whether the loss is far above the constant output's, or above the trial's own best so far."""
    limit = math.inf if constant_loss is None else rules.exploded_vs_constant * constant_loss
    finite = (v.loss if math.isfinite(v.loss) else math.inf for v in validations)
    return [
        not v.loss <= min(limit, rules.exploded_vs_best * best_so_far)
        for v, best_so_far in zip(validations, itertools.accumulate(finite, min), strict=True)
    ]


def looks_failed(validations: Sequence[Validation], constant_loss: float | None, rules: MonitorConfig) -> bool:
    """Whether the last validation may turn out to be where a failure began, if it goes on like this."""
    last = validations[-1:]  # of the patches one suffices here
    return any(
        not math.isfinite(v.loss)
        or (v.amplitude_spread is not None and v.amplitude_spread < rules.collapsed_spread)
        or (v.patch_variation is not None and v.patch_variation < rules.collapsed_patch_variation)
        for v in last
    ) or any(exploded_at(validations, constant_loss, rules)[-1:])


def _best(validations: Sequence[Validation]) -> float:
    return min((v.loss for v in validations if math.isfinite(v.loss)), default=math.inf)


def _of_no_twin(validations: Sequence[Validation], rules: MonitorConfig) -> Sequence[Validation]:
    """Those of which the loss says something: that of a twin image is perfect and proves nothing."""
    return [v for v in validations if v.twin_share is None or v.twin_share <= rules.stagnated_twin_share]


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
