"""What one arm did in one stage, as numbers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fnostab.record.outcomes import EXCLUDED, Outcome
from fnostab.record.table import TrialRow
from fnostab.stats.losses import matched_ratio, worst_rank
from fnostab.stats.proportions import clopper_pearson_upper, wilson

__all__ = ["ArmSummary", "Stage", "Tally", "median", "summarise"]

MOST_NAMED = 8  # seeds in a line


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

    @property
    def outcomes(self) -> dict[str, Counter[str]]:
        """How often each outcome, by arm."""
        return {arm: Counter(str(trial.outcome) for trial in self.arm(arm)) for arm in self.arms}


@dataclass(frozen=True)
class Tally:
    """What criteria are judged on.

    Attributes:
        ok: trials that succeeded.
        failed: trials whose training failed.
        nonfinite: those of them that went nonfinite.
        excluded: trials without a training outcome.
        losses: of the successes that have one, sorted.
    """

    ok: int
    failed: int
    nonfinite: int
    excluded: int
    losses: tuple[float, ...]

    @classmethod
    def of(cls, trials: Sequence[TrialRow]) -> "Tally":
        """Count trials."""
        return cls(
            ok=sum(t.counts and not t.failed for t in trials),
            failed=sum(t.failed for t in trials),
            nonfinite=sum(t.outcome is Outcome.NONFINITE for t in trials),
            excluded=sum(t.excluded for t in trials),
            losses=tuple(sorted(t.loss for t in trials if t.outcome is Outcome.CONVERGED and t.loss is not None)),
        )

    @property
    def n(self) -> int:
        """Trials with a training outcome."""
        return self.ok + self.failed

    @property
    def median(self) -> float | None:
        """Of the losses, which are sorted: `changed_outcomes_to_flip` asks thousands of times."""
        n = len(self.losses)
        return (self.losses[(n - 1) // 2] + self.losses[n // 2]) / 2 if n else None

    def excluded_as_failures(self) -> "Tally":
        """The same, had the excluded trials failed."""
        return replace(self, failed=self.failed + self.excluded, excluded=0)

    def excluded_as_successes(self) -> "Tally":
        """The same, had the excluded trials succeeded, at losses that nobody knows."""
        return replace(self, ok=self.ok + self.excluded, excluded=0)


@dataclass(frozen=True)
class ArmSummary:
    """What one arm did in one stage, for people.

    Attributes:
        n: trials with a training outcome; ``failure_rate`` is over these.
        failure_rate_ci: Wilson, 95 %.
        failure_rate_upper: Clopper-Pearson's one-sided 95 % bound, where none failed; None elsewhere.
        median: of the primary metric over the ``n_ok`` successes only, as is ``iqr``.
        matched_ratio: median ratio to control over the ``matched_pairs`` seeds at which both succeeded.
        worst_rank_p: that the arm is better when failures rank below every success; one-sided.
        left_out: seeds of the trials without a training outcome, by outcome.
    """

    stage: str
    arm: str
    n: int
    n_ok: int
    n_failed: int
    n_excluded: int
    n_running: int
    failure_rate: float | None
    failure_rate_ci: tuple[float, float] | None
    failure_rate_upper: float | None
    median: float | None
    iqr: tuple[float, float] | None
    matched_ratio: float | None
    matched_pairs: int
    worst_rank_p: float | None
    median_ssim_amp: float | None
    median_failure_step: float | None
    outcomes: Mapping[str, int]
    left_out: Mapping[str, tuple[int, ...]]

    @property
    def excluded_line(self) -> str | None:
        """The trials that took no part, with the failure rate that counts them in; None if all did."""
        if not self.left_out:
            return None
        counts = ", ".join(f"{len(seeds)} {outcome} ({_named(seeds)})" for outcome, seeds in self.left_out.items())
        if not self.n:
            return f"Stage {self.stage.upper()}, {self.arm}: no training outcome: {counts}"
        line = f"Stage {self.stage.upper()}, {self.arm}: {counts} take no part in the rate of {self.n_failed}/{self.n}"
        if not self.n_excluded:
            return line
        as_failures = f"{self.n_failed + self.n_excluded}/{self.n + self.n_excluded}"
        return f"{line}; with those that ended counted as failures it would be {as_failures}"


def summarise(stage: Stage, arm: str, control: str, *, higher_is_better: bool = False) -> ArmSummary:
    """Count and describe the trials of one arm, beside ``control``."""
    trials, of_control = stage.arm(arm), stage.arm(control)
    tally = Tally.of(trials)
    successes = [t for t in trials if t.outcome is Outcome.CONVERGED]
    pairs = {"control_by_seed": _by_seed(of_control), "arm_by_seed": _by_seed(trials)}
    has_ratio = arm != control and all(loss > 0 for losses in pairs.values() for loss in losses.values())
    matched = matched_ratio(**pairs) if has_ratio else None
    ranked = [_ranked(each, higher_is_better) for each in (of_control, trials)]
    return ArmSummary(
        stage=stage.name,
        arm=arm,
        n=tally.n,
        n_ok=tally.ok,
        n_failed=tally.failed,
        n_excluded=tally.excluded,
        n_running=sum(t.outcome is Outcome.RUNNING for t in trials),
        failure_rate=tally.failed / tally.n if tally.n else None,
        failure_rate_ci=wilson(tally.failed, tally.n),
        failure_rate_upper=None if tally.failed else clopper_pearson_upper(tally.n),
        median=tally.median,
        iqr=(float(np.quantile(tally.losses, 0.25)), float(np.quantile(tally.losses, 0.75))) if tally.losses else None,
        matched_ratio=matched.ratio if matched else None,
        matched_pairs=matched.n_pairs if matched else 0,
        worst_rank_p=None if arm == control else worst_rank(*ranked).p,
        median_ssim_amp=median([t.ssim_amp for t in successes if t.ssim_amp is not None]),
        median_failure_step=median([t.failure_step for t in trials if t.failed and t.failure_step is not None]),
        outcomes=dict(Counter(str(t.outcome) for t in trials)),
        left_out={
            str(outcome): seeds
            for outcome in (*EXCLUDED, Outcome.RUNNING)
            if (seeds := tuple(t.seed for t in trials if t.outcome is outcome))
        },
    )


def median(values: Sequence[float]) -> float | None:
    """Median; None of nothing."""
    return float(np.median(values)) if values else None


def _named(seeds: Sequence[int]) -> str:
    """``seed 3``, or as many of them as a line bears."""
    shown = ", ".join(map(str, seeds[:MOST_NAMED]))
    return f"seed{'s' if len(seeds) > 1 else ''} {shown}{', ...' if len(seeds) > MOST_NAMED else ''}"


def _by_seed(trials: Sequence[TrialRow]) -> dict[int, float]:
    return {t.seed: t.loss for t in trials if t.outcome is Outcome.CONVERGED and t.loss is not None}


def _ranked(trials: Sequence[TrialRow], higher_is_better: bool) -> list[tuple[bool, float]]:
    """(failed, value) as `worst_rank` takes them; a failure without a step counts as the earliest."""
    sign = -1 if higher_is_better else 1
    pairs: list[tuple[bool, float]] = []
    for t in trials:
        if t.failed:
            pairs.append((True, float(t.failure_step or 0)))
        elif t.counts and t.loss is not None:
            pairs.append((False, sign * t.loss))
    return pairs
