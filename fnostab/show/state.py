"""State of a study as it is shown: the same whether it was read from journals or from a tracking store."""

from collections.abc import Sequence
from dataclasses import dataclass

from fnostab.record.norm_curve import NormCurve
from fnostab.record.outcomes import EXCLUDED, FAILURES, Outcome
from fnostab.record.progress import TrialProgress

__all__ = ["StudyState", "TrialState", "of_progress"]


@dataclass(frozen=True)
class TrialState:
    """One trial as it stands.

    Attributes:
        outcome: None until it is known.
        running: whether a process is at work on it.
        step: last recorded one, 0-based.
        scheduled_steps: of the whole training.
        waits: what a running trial does that records no steps: "starting", "repeats 500".
        spikes: of the gradient norm so far; None if nobody counted.
        curve: gradient norms against the step.
        failure_step: 0-based.
        reason: of an outcome that is no training outcome.
        seconds: duration of the last attempt, so far.
        seconds_left: of its training at the present pace.
        ended_s: Unix time.
    """

    arm: str
    seed: int
    outcome: Outcome | None = None
    running: bool = False
    step: int | None = None
    scheduled_steps: int | None = None
    waits: str = ""
    loss: float | None = None
    grad_norm: float | None = None
    spikes: int | None = None
    curve: NormCurve | None = None
    failure_step: int | None = None
    reason: str | None = None
    seconds: float | None = None
    seconds_left: float | None = None
    ended_s: float | None = None

    @property
    def name(self) -> str:
        """Arm and seed, as the trial's folder is called."""
        return f"{self.arm}-{self.seed}"

    @property
    def failed(self) -> bool:
        """Whether its training failed."""
        return self.outcome in FAILURES

    @property
    def judged(self) -> bool:
        """Whether it counts in its arm's failure rate."""
        return self.outcome is not None and self.outcome not in EXCLUDED


@dataclass(frozen=True)
class StudyState:
    """A study as it stands.

    Attributes:
        trials: those that are known, in the order of the arms.
        jobs: trials side by side.
        complete: whether ``trials`` are all that were asked for. A store knows only those that began.
        trouble: what keeps the view from being up to date, None if nothing does.
    """

    title: str
    trials: Sequence[TrialState]
    jobs: int
    complete: bool = True
    trouble: str | None = None

    @property
    def running(self) -> list[TrialState]:
        """Trials under way."""
        return [trial for trial in self.trials if trial.running]

    def seconds_left(self) -> float | None:
        """Seconds that the known trials still take, from the ended ones or else from the pace; None if unknown."""
        ended = [t.seconds for t in self.trials if t.judged and t.seconds is not None]
        paced = [(t.seconds or 0.0) + t.seconds_left for t in self.trials if t.seconds_left is not None]
        if not (expected := ended or paced):
            return None
        mean = sum(expected) / len(expected)
        waiting = [t for t in self.trials if t.outcome is None]
        remaining = sum(max(0.0, mean - (t.seconds or 0.0 if t.running else 0.0)) for t in waiting)
        return remaining / max(1, min(self.jobs, len(waiting)))


def of_progress(trial: TrialProgress, running: bool) -> TrialState:
    """Make the state of a trial from the progress in its journal."""
    return TrialState(
        arm=trial.spec.arm,
        seed=trial.spec.seed,
        outcome=trial.outcome
        if trial.finished or not (running or trial.queued)
        else None,  # else it is of an attempt before
        running=running,
        step=trial.step,
        scheduled_steps=trial.scheduled_steps,
        waits=_waits(trial) if running and trial.step is None else "",
        loss=trial.loss,
        grad_norm=trial.grad_norm,
        spikes=trial.spikes,
        curve=trial.curve,
        failure_step=trial.failure_step,
        reason=trial.reason,
        seconds=trial.seconds(),
        seconds_left=trial.seconds_left() if running else None,
        ended_s=trial.ended_s,
    )


def _waits(trial: TrialProgress) -> str:
    if trial.training_since_s is not None and trial.held_step is not None:
        return f"repeats {trial.held_step + 1}"
    return "starting"
