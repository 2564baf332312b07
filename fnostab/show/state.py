"""State of a study as it is shown, whether it was read from journals or from a tracking store."""

from collections.abc import Sequence
from dataclasses import dataclass

from fnostab.record.progress import TrialState


@dataclass(frozen=True)
class StudyState:
    """Current state of a study.

    Attributes:
        trials: known trials, in the order of the arms.
        jobs: number of trials that run at once.
        complete: whether ``trials`` are all that were asked for; a store knows only those that have begun.
        trouble: why the view is not up to date; None if it is.
    """

    title: str
    trials: Sequence[TrialState]
    jobs: int
    complete: bool = True
    trouble: str | None = None

    @property
    def running(self) -> list[TrialState]:
        """Running trials."""
        return [trial for trial in self.trials if trial.running]

    def seconds_left(self) -> float | None:
        """Estimate the seconds that known trials still take; None if unknown.

        A running trial goes by its own pace, others by the mean of those that ended or, if none has, by the pace.
        """
        ended = [t.seconds for t in self.trials if t.judged and t.seconds is not None]
        own = [t.seconds_left for t in self.trials if t.seconds_left is not None]
        paced = [(t.seconds or 0.0) + t.seconds_left for t in self.trials if t.seconds_left is not None]
        if not (expected := ended or paced):
            return None
        mean = sum(expected) / len(expected)
        waiting = [t for t in self.trials if t.settled is None and t.seconds_left is None]
        remaining = sum(max(0.0, mean - (t.seconds or 0.0 if t.running else 0.0)) for t in waiting)
        return max([*own, (sum(own) + remaining) / max(1, min(self.jobs, len(own) + len(waiting)))])
