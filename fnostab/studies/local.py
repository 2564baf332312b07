"""Trials as processes of this machine, a few side by side."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from fnostab import names
from fnostab.errors import FnostabError, LaunchError
from fnostab.journal import Journal
from fnostab.outcomes import Outcome
from fnostab.studies.progress import TrialProgress, is_being_written
from fnostab.studies.spec import count_gpus

__all__ = ["LocalLauncher", "default_jobs"]

GRACE_S = 20.0  # between asking a trial to end and ending it


def default_jobs(device: str) -> int:
    """One process a GPU, or one a core: faster than two processes with two threads each."""
    gpus = 0 if device == "cpu" else count_gpus()
    return gpus or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else gpus or os.cpu_count() or 1


class LocalLauncher:
    """Starts trials as ``python -m fnostab train --trial FILE`` and says when they have ended.

    A trial that another launcher started and that is still at work is adopted: waited for, not
    started again. A process that dies without a word gets its outcome written for it.

    Args:
        jobs: processes side by side.
        device: "auto", "cpu" or "cuda"; with GPUs the processes take turns on them.
    """

    def __init__(self, jobs: int, device: str) -> None:
        if jobs < 1:
            raise LaunchError(f"jobs={jobs}: at least 1 is needed")
        self.jobs = jobs
        self.gpus = 0 if device == "cpu" else count_gpus()
        self._running: dict[Path, tuple[TrialProgress, subprocess.Popen[bytes] | None, int]] = {}

    @property
    def free(self) -> int:
        """How many more trials can be submitted now."""
        return self.jobs - len(self._running)

    def submit(self, trial: TrialProgress) -> None:
        """Start a trial, or adopt it if it is running already."""
        slot = min(set(range(self.jobs)) - {slot for _, _, slot in self._running.values()})
        process = None if is_being_written(trial.directory) else self._start(trial, slot)
        self._running[trial.directory] = (trial, process, slot)

    def poll(self) -> list[TrialProgress]:
        """Trials that have ended since the last call, each with its outcome in its journal."""
        ended = []
        for directory, (trial, process, _) in list(self._running.items()):
            if process is None and not is_being_written(directory):
                trial.update()
                if trial.outcome is None:
                    _write_outcome(trial, Outcome.KILLED, "its process is gone")
            elif process is None or process.poll() is None:
                continue
            else:
                trial.update()
                if trial.outcome is None:
                    _write_outcome(trial, *_post_mortem(process.returncode, directory / "stderr.log"))
            del self._running[directory]
            ended.append(trial)
        return ended

    def cancel(self) -> None:
        """End the trials that this launcher started; they write ``killed``. Adopted ones go on."""
        started = [process for _, process, _ in self._running.values() if process is not None]
        for process in started:
            process.terminate()
        deadline = time.monotonic() + GRACE_S
        for process in started:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.poll()

    def _start(self, trial: TrialProgress, slot: int) -> subprocess.Popen[bytes]:
        environment = dict(os.environ)
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = str(slot % self.gpus)
        else:
            environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "fnostab", "train", "--trial", str(trial.directory / "trial.json")]
        try:
            with open(trial.directory / "stderr.log", "ab") as log:
                # A session of its own: Ctrl-C reaches the launcher alone, which then asks its trials to end.
                return subprocess.Popen(
                    command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
        except OSError as error:
            raise LaunchError(f"can't start {trial.name}: {error.strerror or error}") from error


def _post_mortem(return_code: int, stderr: Path) -> tuple[Outcome, str]:
    if return_code < 0:
        name = signal.Signals(-return_code).name
        hint = ", perhaps by the kernel for want of memory" if name == "SIGKILL" else ""
        return Outcome.KILLED, f"ended by {name}{hint}"
    lines = stderr.read_text(errors="replace").split("\n") if stderr.exists() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "no message")
    return Outcome.INFRA_ERROR, f"exit status {return_code}: {last}"[:500]


def _write_outcome(trial: TrialProgress, outcome: Outcome, reason: str) -> None:
    payload = {"outcome": str(outcome), "reason": reason, "failure_step": None, "known_good_step": None}
    try:
        with Journal(trial.directory) as journal:
            journal.event(names.OUTCOME_EVENT, {**payload, "rules_held": [], "not_judged": []})
        trial.update()
    except FnostabError as error:  # a full disk, say; the others go on
        trial.outcome, trial.reason = outcome, f"{reason}; {error}"
