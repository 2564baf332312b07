"""Body of a Slurm job: some trials side by side, until they end or the job is interrupted.

Slurm gives notice to a job that is to be preempted, or whose time is nearly up, by SIGUSR2; submitit takes that
signal, calls `TrialsJob.checkpoint` and queues the job again. Some clusters preempt with SIGTERM and queue the job
again themselves. Nothing else does: trials tell Lightning that they are in no Slurm job. No MLflow here: a compute
node may see nothing but the shared disk.
"""

import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from submitit.helpers import DelayedSubmission

from fnostab.errors import LaunchError
from fnostab.launch.local import LocalLauncher
from fnostab.record.folders import TRIAL_FILE
from fnostab.record.outcomes import TRAINING_OUTCOMES, Outcome
from fnostab.record.progress import TrialProgress
from fnostab.record.trial import TrialSpec

__all__ = ["TrialsJob"]

POLL_S = 0.25
LINGER_S = 300.0  # that a job waits for its end after it was told of it
NOTICE = signal.SIGUSR2


class TrialsJob:
    """Trains trials in processes of their own; called by submitit, on a compute node."""

    def __init__(self, directories: Sequence[Path]) -> None:
        self.directories = [str(directory) for directory in directories]
        self._launcher: LocalLauncher | None = None
        self._unfinished: list[TrialProgress] = []
        self._told_to_end = False

    def __call__(self) -> dict[str, str]:
        """Train those that have no result yet; what became of each.

        Raises:
            LaunchError: a ``trial.json`` can't be read here.
        """
        # Blocked but while this process sleeps, so that an interruption finds no work half done. Trials inherit the
        # block: Slurm signals them too, but what they heed is the SIGTERM of `checkpoint`.
        signal.pthread_sigmask(signal.SIG_BLOCK, {NOTICE})
        signal.signal(signal.SIGTERM, self._note_the_end)
        trials = [_read(Path(directory)) for directory in self.directories]
        self._unfinished = [trial for trial in trials if trial.outcome not in TRAINING_OUTCOMES]
        gpu = trials[0].spec.resources.gpu
        # No forks: one process more would count in the job's memory, and its trials are few
        launcher = self._launcher = LocalLauncher(max(len(self._unfinished), 1), gpu, forks=False)
        for trial in self._unfinished:
            trial.begin_again()
            launcher.submit([trial])
        while launcher.free < launcher.jobs:
            _sleep()
            for trial in launcher.poll():
                if not (self._told_to_end and trial.outcome is Outcome.KILLED):
                    self._unfinished.remove(trial)
        if self._unfinished:
            self._linger()
        return {trial.name: str(trial.outcome) for trial in trials}

    def checkpoint(self) -> DelayedSubmission:
        """Let the trials write their resume points and end; return the job that resumes them."""
        if self._launcher is not None:
            self._launcher.cancel()
        return DelayedSubmission(TrialsJob([trial.directory for trial in self._unfinished]))

    def _note_the_end(self, signum: int, frame: object) -> None:
        """Slurm sends SIGTERM to all processes of a job: the trials heed it by themselves."""
        self._told_to_end = True

    def _linger(self) -> None:
        """Wait for the end that Slurm has announced: a job that ended by itself would not be queued again."""
        deadline = time.monotonic() + LINGER_S
        while time.monotonic() < deadline:
            _sleep()


def _sleep() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {NOTICE})
    time.sleep(POLL_S)
    signal.pthread_sigmask(signal.SIG_BLOCK, {NOTICE})


def _read(directory: Path) -> TrialProgress:
    try:
        trial = TrialProgress(TrialSpec.read(directory / TRIAL_FILE), directory)
    except LaunchError as error:
        node = socket.gethostname()
        raise LaunchError(f"{error} (on {node}): is --output on a disk that compute nodes share?") from None
    trial.update()
    return trial
