"""Interface of the launchers that `run_study` uses: local processes and Slurm jobs."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fnostab.errors import FnostabError
from fnostab.record.ending import close_attempt
from fnostab.record.folders import TRIAL_FILE
from fnostab.record.journal import Journal
from fnostab.record.lines import FILE_NAME
from fnostab.record.process_end import Ending
from fnostab.record.progress import TrialProgress
from fnostab.record.trial import Resources
from fnostab.tasks.command.supervisor import end_program


class Launcher(Protocol):
    """Launcher of trials, each in its own process.

    Attributes:
        jobs: largest number of trials that run at once.
        trials_per_job: number of trials that share a job.
        lockstep: whether trials of a job are trained in lockstep, and so belong to one arm.
        live: whether trials write to this terminal.
        trouble: reason why the state of trials is unknown; None if it is known.
    """

    jobs: int
    trials_per_job: int
    lockstep: bool
    here: bool
    live: bool
    trouble: str | None

    @property
    def leaving(self) -> str:
        """Message on what happens to trials when this process is interrupted."""

    @property
    def free(self) -> int:
        """Number of further jobs that can be submitted now."""

    def call(self, place: str, given: Mapping[str, Any], resources: Resources) -> Any:
        """Call a function in another process of this machine; see `calls.call_with`."""

    def submit(self, trials: Sequence[TrialProgress]) -> None:
        """Start trials that share one job, or adopt those already running.

        Raises:
            LaunchError: they can't be started.
        """

    def poll(self) -> list[TrialProgress]:
        """Trials that have ended since the last call, each with its outcome in its journal.

        Raises:
            LaunchError: the submission is refused.
        """

    def preview(self, trials: Sequence[TrialProgress]) -> str:
        """Show which trials would be started, or the script that would start them."""

    def leave(self) -> None:
        """Release the trials because this process ends."""

    def cancel(self) -> list[TrialProgress]:
        """End all running trials as ``killed``, except local ones started by another launcher."""


def jobs_of(waiting: Sequence[TrialProgress], launcher: Launcher) -> list[list[TrialProgress]]:
    """Group waiting trials by shared job, in order."""
    jobs: list[list[TrialProgress]] = []
    for trial in waiting:
        for job in jobs:
            if len(job) < launcher.trials_per_job and (not launcher.lockstep or job[0].spec.arm == trial.spec.arm):
                job.append(trial)
                break
        else:
            jobs.append([trial])
    return jobs


def write_outcome(trial: TrialProgress, ending: Ending) -> None:
    """Write the outcome of a trial whose process ended without one, as `close_attempt` does.

    A folder that was moved or deleted meanwhile is not recreated: the trial's records may be elsewhere.
    """
    if not (trial.directory / TRIAL_FILE).exists():
        trial.outcome, trial.unwritten = ending.outcome, True
        trial.reason = (
            f"{trial.directory} was moved or deleted while it ran: run the same command where the folder is now"
        )
        return
    try:
        if trial.spec.argv is not None and (trial.directory / FILE_NAME).exists():
            end_program(trial.directory)
        with Journal(trial.directory) as journal:
            trial.update()
            if trial.outcome is not None:  # another launcher was faster
                return
            close_attempt(journal, ending)
        trial.update()
    except FnostabError as error:  # a full disk, say; other trials continue
        trial.outcome, trial.reason, trial.unwritten = ending.outcome, f"{ending.reason}; {error}", True
