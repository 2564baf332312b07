"""Interface of a launcher, as `run_study` uses it: local processes and Slurm jobs implement it."""

from collections.abc import Sequence
from typing import Any, Protocol

from fnostab.errors import FnostabError
from fnostab.launch.supervisor import end_program
from fnostab.record import names
from fnostab.record.attempt import end_program_trial
from fnostab.record.ending import failure_payload
from fnostab.record.journal import FILE_NAME, Journal
from fnostab.record.outcomes import Outcome
from fnostab.record.progress import TrialProgress

__all__ = ["Launcher", "jobs_of", "write_outcome"]


class Launcher(Protocol):
    """Runs trials, each as a process of its own, and says when they have ended.

    Attributes:
        jobs: how many trials run side by side at most.
        trials_per_job: how many of them share one job.
        lockstep: whether those are trained in lockstep, and therefore of one arm.
        here: whether they run on this machine.
        live: whether trials write to this terminal.
        trouble: what keeps it from knowing how they are; None if nothing does.
    """

    jobs: int
    trials_per_job: int
    lockstep: bool
    here: bool
    live: bool
    trouble: str | None

    @property
    def leaving(self) -> str:
        """Say in words what becomes of trials when this process is interrupted."""

    @property
    def free(self) -> int:
        """Number of further jobs that can be submitted now."""

    def submit(self, trials: Sequence[TrialProgress]) -> None:
        """Start trials that share one job, or adopt those that are under way already.

        Raises:
            LaunchError: they can't be started.
        """

    def poll(self) -> list[TrialProgress]:
        """Trials that have ended since the last call, each with its outcome in its journal.

        Raises:
            LaunchError: what was submitted is refused.
        """

    def preview(self, trials: Sequence[TrialProgress]) -> str:
        """Show what would be started for trials."""

    def leave(self) -> None:
        """Let go of the trials, since this process ends."""

    def cancel(self) -> list[TrialProgress]:
        """End all trials that are under way, but for those of this machine that others started; they are ``killed``."""


def jobs_of(waiting: Sequence[TrialProgress], launcher: Launcher) -> list[list[TrialProgress]]:
    """Trials in the order in which they wait, as those that share a job."""
    jobs: list[list[TrialProgress]] = []
    for trial in waiting:
        for job in jobs:
            if len(job) < launcher.trials_per_job and (not launcher.lockstep or job[0].spec.arm == trial.spec.arm):
                job.append(trial)
                break
        else:
            jobs.append([trial])
    return jobs


def write_outcome(trial: TrialProgress, outcome: Outcome, reason: str, *, requested: bool) -> None:
    """Write the outcome of a trial that did not; a failure of training that its journal shows stands.

    Args:
        trial: whose process is gone.
        outcome: to write.
        reason: for it.
        requested: whether the process was asked to end, so that the trial is not to blame.
    """
    payload: dict[str, Any] = {"outcome": str(outcome), "failure_step": None, "known_good_step": None}
    payload |= {"rules_held": [], "not_judged": [], "reason": reason}
    try:
        if trial.spec.argv is not None and (trial.directory / FILE_NAME).exists():
            end_program(trial.directory)
        with Journal(trial.directory) as journal:
            trial.update()
            if trial.outcome is not None:  # another launcher was faster
                return
            if end_program_trial(journal, asked=requested):
                trial.update()
                return
            failure = failure_payload(trial.directory, trial.spec)
            if not failure and requested:
                payload["requested"] = True
            journal.event(names.OUTCOME_EVENT, payload | failure)
        trial.update()
    except FnostabError as error:  # a full disk, say; the others go on
        trial.outcome, trial.reason, trial.unwritten = outcome, f"{reason}; {error}", True
