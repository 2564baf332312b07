"""Count the trials of one arm in one stage: outcomes, losses, quality measures."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from fnostab.record.outcomes import EXCLUDED, Outcome
from fnostab.record.table import TrialRow
from fnostab.stats.interval import Interval
from fnostab.stats.losses import have_ratios, lower_loss_p, matched_ratio
from fnostab.stats.proportions import clopper_pearson_upper, wilson
from fnostab.stats.rate import Rate

MISSING = "missing"  # in place of an outcome: the trial no longer exists


@dataclass(frozen=True)
class Stage:
    """Trials of one stage: ``a``, or ``b`` for the deep stress test of a two-stage study.

    Attributes:
        known_missing: missing seeds of the study by arm. None if unknown; gaps in the seeds then count as missing.
        same_settings: arms with the settings of another, each with that arm; they are not compared.
        not_asked: arms of the study that nobody has asked to run.
    """

    name: str
    trials: tuple[TrialRow, ...]
    known_missing: Mapping[str, tuple[int, ...]] | None = None
    same_settings: Mapping[str, str] = field(default_factory=dict)
    not_asked: tuple[str, ...] = ()

    @cached_property
    def _by_arm(self) -> dict[str, list[TrialRow]]:
        by_arm: dict[str, list[TrialRow]] = {}
        for trial in self.trials:
            by_arm.setdefault(trial.arm, []).append(trial)
        return by_arm

    def arm(self, name: str) -> list[TrialRow]:
        """Trials of one arm."""
        return self._by_arm.get(name, [])

    @property
    def arms(self) -> list[str]:
        """Names of the arms with trials, in order of appearance."""
        return list(self._by_arm)

    def repeated(self, control: str) -> dict[str, str]:
        """Arms that are not compared, each with another arm of the same settings that was also run."""
        first: dict[str, str] = {}
        for arm in sorted(self.arms, key=lambda arm: arm != control):
            first.setdefault(self.same_settings.get(arm, arm), arm)
        firsts = {arm: first[self.same_settings.get(arm, arm)] for arm in self.arms}
        return {arm: other for arm, other in firsts.items() if other != arm}

    def compared(self, control: str) -> list[str]:
        """Names of the arms with trials that are compared with control."""
        return [arm for arm in self.arms if arm != control and arm not in self.repeated(control)]

    @property
    def outcomes(self) -> dict[str, Counter[str]]:
        """Number of trials with each outcome, by arm."""
        return {arm: Counter(str(trial.outcome) for trial in self.arm(arm)) for arm in self.arms}

    def missing(self, arm: str) -> tuple[int, ...]:
        """Missing seeds of an arm: those in the record, else gaps if two arms share most of their seeds."""
        if self.known_missing is not None:
            return tuple(self.known_missing.get(arm, ()))
        seeds = {trial.seed for trial in self.arm(arm)}
        gaps: set[int] = set()
        for other in self.arms:
            theirs = {trial.seed for trial in self.arm(other)}
            if 2 * len(seeds & theirs) > min(len(seeds), len(theirs)):
                gaps |= {seed for seed in theirs - seeds if min(seeds) < seed < max(seeds)}
        return tuple(sorted(gaps))

    @property
    def all_missing(self) -> dict[str, tuple[int, ...]]:
        """Missing seeds by arm, for arms with any."""
        found = {arm: self.missing(arm) for arm in dict.fromkeys((*self.arms, *(self.known_missing or ())))}
        return {arm: seeds for arm, seeds in found.items() if seeds}

    @property
    def gone(self) -> dict[str, tuple[int, ...]]:
        """Arms without any trial left, with their planned seeds."""
        return {arm: seeds for arm, seeds in self.all_missing.items() if arm not in self._by_arm}

    @property
    def not_run(self) -> dict[str, tuple[int, ...]]:
        """Arms of the study without any trial, with the seeds at which they can be compared with the others."""
        seeds = tuple(sorted({trial.seed for trial in self.trials}))
        return {arm: self.gone.get(arm, seeds) for arm in (*self.gone, *self.not_asked)}


@dataclass(frozen=True)
class Tally:
    """Counts and values of one arm, from which criteria are judged.

    Attributes:
        nonfinite: number of trials that failed as `nonfinite`.
        pending: number of trials without a training outcome: excluded, running or missing.
        losses: recorded metric values of the successes, sorted, (n,).
        steps: median length of a trial in optimiser steps; None if unknown.
        reached: last step of its longest trial, failed or not; None if unknown.
        measures: quality measures of the successes, by name.
    """

    ok: int
    failed: int
    nonfinite: int = 0
    pending: int = 0
    losses: tuple[float, ...] = ()
    steps: float | None = None
    reached: float | None = None
    measures: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    guessed: int = 0  # imputed trials among ok

    @classmethod
    def of(cls, stage: Stage, arm: str) -> "Tally":
        """Count the trials of an arm."""
        trials = stage.arm(arm)
        successes = [t for t in trials if t.outcome is Outcome.CONVERGED]
        names = dict.fromkeys(name for t in successes for name in t.measures)
        return cls(
            ok=len(successes),
            failed=sum(t.failed for t in trials),
            nonfinite=sum(t.outcome is Outcome.NONFINITE for t in trials),
            pending=sum(not t.counts for t in trials) + len(stage.missing(arm)),
            losses=tuple(sorted(t.loss for t in successes if t.loss is not None)),
            steps=_steps(trials),
            reached=max((t.last_step for t in trials if t.counts and t.last_step is not None), default=None),
            measures={n: tuple(t.measures[n] for t in successes if n in t.measures) for n in names},
        )

    @property
    def n(self) -> int:
        """Number of trials with a training outcome."""
        return self.ok + self.failed

    @property
    def rate(self) -> Rate:
        """Failures among the trials with a training outcome."""
        return Rate(self.failed, self.n)

    @property
    def median(self) -> float | None:
        """Median metric of the successes; None if there is none."""
        return median(self.losses)

    @property
    def unknown(self) -> int:
        """Number of successes whose metric was not recorded."""
        return self.ok - self.guessed - len(self.losses)

    def had_failed(self) -> "Tally":
        """Return the tally as if the pending trials had failed."""
        return replace(self, failed=self.failed + self.pending, pending=0)

    def had_succeeded(self) -> "Tally":
        """Return the tally as if the pending trials had succeeded, with unknown losses."""
        return replace(self, ok=self.ok + self.pending, guessed=self.pending, pending=0)


@dataclass(frozen=True)
class ArmSummary:
    """Summary of one arm in one stage, for tables and reports.

    Attributes:
        n: number of trials with a training outcome, over which ``failure_rate`` is taken.
        failure_rate_ci: Wilson's 95 % interval.
        failure_rate_upper: one-sided 95 % Clopper-Pearson bound if no trial failed; else None.
        median: median of the metric over the ``n_ok`` successes only, like ``iqr``.
        measures: medians of the quality measures over the successes.
        matched_ratio: median ratio to control over the ``matched_pairs`` seeds at which both succeeded.
        worst_rank_p: one-sided p-value for a better arm, with failed runs ranked worst; None for control, or if a
            success has no value.
        left_out: seeds of the trials without a training outcome, by outcome; ``missing`` for those without a record.
    """

    stage: str
    arm: str
    n: int
    n_ok: int
    n_failed: int
    n_excluded: int
    n_running: int
    failure_rate: float | None
    failure_rate_ci: Interval | None
    failure_rate_upper: float | None
    median: float | None
    iqr: tuple[float, float] | None
    measures: Mapping[str, float]
    matched_ratio: float | None
    matched_pairs: int
    worst_rank_p: float | None
    median_failure_step: float | None
    outcomes: Mapping[str, int]
    left_out: Mapping[str, tuple[int, ...]]


def summarise(stage: Stage, arm: str, control: str, *, higher_is_better: bool = False) -> ArmSummary:
    """Count and describe the trials of one arm, relative to ``control``."""
    trials, tally = stage.arm(arm), Tally.of(stage, arm)
    pairs = {"control_by_seed": _by_seed(stage.arm(control)), "arm_by_seed": _by_seed(trials)}
    has_ratio = arm != control and have_ratios([loss for losses in pairs.values() for loss in losses.values()])
    matched = matched_ratio(**pairs) if has_ratio else None
    of_control, of_arm = (_ranked(each, higher_is_better) for each in (stage.arm(control), trials))
    is_ranked = arm != control and not (tally.unknown or Tally.of(stage, control).unknown)
    return ArmSummary(
        stage=stage.name,
        arm=arm,
        n=tally.n,
        n_ok=tally.ok,
        n_failed=tally.failed,
        n_excluded=sum(t.excluded for t in trials),
        n_running=sum(t.outcome is Outcome.RUNNING for t in trials),
        failure_rate=tally.rate.value if tally.n else None,
        failure_rate_ci=wilson(tally.failed, tally.n),
        failure_rate_upper=None if tally.failed else clopper_pearson_upper(tally.n),
        median=tally.median,
        iqr=(float(np.quantile(tally.losses, 0.25)), float(np.quantile(tally.losses, 0.75))) if tally.losses else None,
        measures={name: float(np.median(values)) for name, values in tally.measures.items()},
        matched_ratio=matched.ratio if matched else None,
        matched_pairs=matched.n_pairs if matched else 0,
        worst_rank_p=lower_loss_p(of_control, of_arm) if is_ranked else None,
        median_failure_step=median([t.failure_step for t in trials if t.failed and t.failure_step is not None]),
        outcomes=dict(Counter(str(t.outcome) for t in trials)),
        left_out=_left_out(stage, arm),
    )


def median(values: Sequence[float]) -> float | None:
    """Median; None for an empty sequence."""
    return float(np.median(values)) if values else None


def _left_out(stage: Stage, arm: str) -> dict[str, tuple[int, ...]]:
    found = {
        str(outcome): tuple(t.seed for t in stage.arm(arm) if t.outcome is outcome)
        for outcome in (*EXCLUDED, Outcome.RUNNING)
    }
    return {outcome: seeds for outcome, seeds in (*found.items(), (MISSING, stage.missing(arm))) if seeds}


def _steps(trials: Sequence[TrialRow]) -> float | None:
    """Median of the scheduled steps or, if unrecorded, of the last steps of trials that did not fail."""
    scheduled = [t.scheduled_steps for t in trials if t.scheduled_steps is not None]
    last = [t.last_step for t in trials if t.outcome is Outcome.CONVERGED and t.last_step is not None]
    return median(scheduled or last)


def _by_seed(trials: Sequence[TrialRow]) -> dict[int, float]:
    return {t.seed: t.loss for t in trials if t.outcome is Outcome.CONVERGED and t.loss is not None}


def _ranked(trials: Sequence[TrialRow], higher_is_better: bool) -> list[float]:
    """Losses, negated if higher is better, with infinity for a failure."""
    sign = -1 if higher_is_better else 1
    losses = [sign * t.loss for t in trials if t.outcome is Outcome.CONVERGED and t.loss is not None]
    return [*losses, *(math.inf for t in trials if t.failed)]
