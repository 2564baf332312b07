"""Body of a Slurm job: trains some trials side by side, until they end or the job is interrupted.

Slurm sends SIGUSR2 to a job that is to be preempted or whose time is nearly up; submitit takes that signal, calls
`TrialsJob.checkpoint` and queues the job again. Some clusters preempt with SIGTERM and queue the job again themselves.
Lightning does not: trials tell it that they are in no Slurm job. MLflow is not used here, because a compute node may
reach nothing but the shared disk.
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

POLL_S = 0.25
LINGER_S = 300.0  # for which a job waits to be ended after SIGTERM
NOTICE = signal.SIGUSR2


class TrialsJob:
    """Trains each trial in a process of its own; called by submitit on a compute node."""

    def __init__(self, directories: Sequence[Path]) -> None:
        self.directories = [str(directory) for directory in directories]
        self._launcher: LocalLauncher | None = None
        self._unfinished: list[TrialProgress] = []
        self._told_to_end = False

    def __call__(self) -> dict[str, str]:
        """Train the trials that have no result yet; return the outcomes of all by name.

        Raises:
            LaunchError: a ``trial.json`` can't be read here.
        """
        # Unblocked only while this process sleeps, so that an interruption leaves no work half done. Trials inherit
        # the block: Slurm signals them too, but they end by the SIGTERM of `checkpoint`.
        signal.pthread_sigmask(signal.SIG_BLOCK, {NOTICE})
        signal.signal(signal.SIGTERM, self._note_the_end)
        trials = [_read(Path(directory)) for directory in self.directories]
        self._unfinished = [trial for trial in trials if trial.outcome not in TRAINING_OUTCOMES]
        gpu = trials[0].spec.resources.gpu
        # No fork server: it would take memory of the job, which has few trials
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
        """End the trials once they have written their resume points; return the job that resumes them."""
        if self._launcher is not None:
            self._launcher.cancel()
        return DelayedSubmission(TrialsJob([trial.directory for trial in self._unfinished]))

    def _note_the_end(self, signum: int, frame: object) -> None:
        """Note a SIGTERM; Slurm sends it to all processes of a job, so that the trials end by themselves."""
        self._told_to_end = True

    def _linger(self) -> None:
        """Wait until Slurm ends this job, since a job that ends by itself is not queued again."""
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
