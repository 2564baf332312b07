"""Cancel a study that another process runs, or of which only the jobs are left.

A file in the study's folder tells its launcher, on any machine that shares the disk, to stop. Running trials are also
ended from here, in case no launcher is left to read the file.
"""

import os
import signal
import time
from pathlib import Path

from fnostab.launch.slurm.cluster import ClusterFile
from fnostab.launch.slurm.launcher import SlurmLauncher
from fnostab.record import slurm_jobs as slurm
from fnostab.record.attempt import is_alive, is_being_written, is_foreign, last_attempt
from fnostab.record.ending import close_if_abandoned
from fnostab.record.job_arrays import FOLDER
from fnostab.record.lines import FILE_NAME
from fnostab.record.progress import TrialProgress
from fnostab.record.trial import TrialSpec
from fnostab.tasks.command.supervisor import end_program

FILE = "cancelled"
GRACE_S = 30.0  # for trials to write their end
POLL_S = 0.2


def is_cancelled(folder: Path) -> bool:
    """Whether the study in a folder was cancelled."""
    return (folder / FILE).exists()


def forget_cancelling(folder: Path) -> None:
    """Withdraw the cancellation when the study in a folder is started again."""
    (folder / FILE).unlink(missing_ok=True)


def cancel_study(folder: Path) -> tuple[list[TrialProgress], list[TrialProgress]]:
    """End the running and waiting trials of the study in a folder.

    Jobs of a cluster are cancelled; processes of this machine get SIGTERM and write a resume point.

    Returns:
        The trials that were ended (``killed`` unless they had a training outcome), and those still running,
        for example on another machine.

    Raises:
        FnostabError: a record can't be read, or Slurm refuses.
    """
    trials = [TrialProgress(TrialSpec.read(path), path.parent) for path in sorted(folder.glob("*/trial.json"))]
    (folder / FILE).touch()
    ended = _cancel_jobs(folder, trials)
    asked = [trial for trial in trials if trial not in ended and _is_at_work(trial)]
    for trial in asked:
        _ask_to_end(trial)
    deadline = time.monotonic() + GRACE_S
    while any(map(_is_at_work, asked)) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    running = [trial for trial in asked if _is_at_work(trial)]
    for trial in asked:
        if trial not in running:
            close_if_abandoned(trial.directory)
            trial.update()
            ended.append(trial)
    return ended, running


def _cancel_jobs(folder: Path, trials: list[TrialProgress]) -> list[TrialProgress]:
    if not (folder / FOLDER).is_dir() or not slurm.is_here():
        return []
    launcher = SlurmLauncher(ClusterFile())
    for trial in trials:
        trial.update()
    launcher.adopt([trial for trial in trials if not trial.finished])
    return launcher.cancel()


def _is_at_work(trial: TrialProgress) -> bool:
    trial.update()
    return trial.first_ms is not None and is_being_written(trial.directory)


def _ask_to_end(trial: TrialProgress) -> None:
    attempt = last_attempt(trial.directory / FILE_NAME)
    if attempt.owner and not is_foreign(attempt.owner) and is_alive(attempt.owner, attempt.owner_since_ms):
        os.kill(int(attempt.owner.partition("@")[0]), signal.SIGTERM)
    elif trial.spec.argv is not None:  # its supervisor has died
        end_program(trial.directory)
