"""Trials as processes of this machine, a few side by side."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fnostab import names
from fnostab.errors import FnostabError, LaunchError
from fnostab.journal import Journal
from fnostab.outcomes import Outcome
from fnostab.studies.progress import TrialProgress
from fnostab.studies.spec import count_gpus
from fnostab.tracking.attempt import STDERR_FILE, is_being_written

__all__ = ["LocalLauncher", "default_jobs"]

GRACE_S = 20.0  # between asking a trial to end and ending it
LONGEST_REASON = 500  # characters


def default_jobs(device: str) -> int:
    """One process a GPU, or one a core: faster than two processes with two threads each."""
    gpus = 0 if device == "cpu" else count_gpus()
    if gpus:
        return gpus
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class _Job:
    """A trial under way. ``process`` is None if another launcher started it."""

    trial: TrialProgress
    slot: int
    process: subprocess.Popen[bytes] | None
    asked_to_end: bool = False
    log_start: int = 0  # where this attempt's output begins in stderr.log

    @property
    def log(self) -> Path:
        return self.trial.directory / STDERR_FILE

    def has_ended(self) -> bool:
        if self.process is not None and self.process.poll() is None:
            return False
        if not is_being_written(self.trial.directory):
            return True
        self.process = None  # another launcher's process was faster
        return False


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
        self._running: list[_Job] = []

    @property
    def free(self) -> int:
        """How many more trials can be submitted now."""
        return self.jobs - len(self._running)

    def submit(self, trial: TrialProgress) -> None:
        """Start a trial, or adopt it if it is running already.

        Raises:
            LaunchError: its process can't be started.
        """
        job = _Job(trial, min(set(range(self.jobs)) - {job.slot for job in self._running}), None)
        if not is_being_written(trial.directory):
            self._start(job)
        self._running.append(job)

    def poll(self) -> list[TrialProgress]:
        """Trials that have ended since the last call, each with its outcome in its journal."""
        ended = [job for job in self._running if job.has_ended()]
        for job in ended:
            self._running.remove(job)
            job.trial.update()
            if job.trial.outcome is None:
                outcome, reason = _post_mortem(job)
                _write_outcome(job.trial, outcome, reason, requested=_was_asked_to_end(job))
        return [job.trial for job in ended]

    def cancel(self) -> None:
        """End the trials that this launcher started; they write ``killed``. Adopted ones go on.

        Ctrl-C while it waits for them ends them at once.
        """
        started = []
        for job in self._running:
            if job.process is not None:
                started.append(job.process)
                job.asked_to_end = True
                job.process.terminate()
        deadline = time.monotonic() + GRACE_S
        try:
            for process in started:
                process.wait(max(0.0, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            for process in started:
                process.kill()
        for process in started:
            process.wait()
        self.poll()

    def _start(self, job: _Job) -> None:
        environment = dict(os.environ)
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = str(job.slot % self.gpus)
        else:
            environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "fnostab", "train", "--trial", str(job.trial.directory / "trial.json")]
        try:
            with open(job.log, "ab") as log:
                job.log_start = log.tell()
                # A session of its own: Ctrl-C reaches the launcher alone, which then asks its trials to end.
                job.process = subprocess.Popen(
                    command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
        except OSError as error:
            raise LaunchError(f"can't start {job.trial.name}: {error.strerror or error}") from error


def _post_mortem(job: _Job) -> tuple[Outcome, str]:
    if job.process is None:
        return Outcome.KILLED, "its process is gone"
    lines = job.log.read_bytes()[job.log_start :].decode(errors="replace").splitlines() if job.log.exists() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it left no message")
    return_code = job.process.returncode
    if job.asked_to_end and return_code >= 0:  # before it had a journal to say so in
        return Outcome.KILLED, f"asked to end: {last}"[:LONGEST_REASON]
    if return_code < 0:
        name = signal.Signals(-return_code).name
        hint = " (perhaps by the kernel, for want of memory)" if name == "SIGKILL" else ""
        return Outcome.KILLED, f"ended by {name}{hint}: {last}"[:LONGEST_REASON]
    return Outcome.INFRA_ERROR, f"exit status {return_code}: {last}"[:LONGEST_REASON]


def _was_asked_to_end(job: _Job) -> bool:
    """Whether a process that wrote no outcome got a signal that asks, perhaps before it could take it."""
    asked = job.process is not None and -job.process.returncode in (signal.SIGTERM, signal.SIGINT)
    return job.asked_to_end or asked


def _write_outcome(trial: TrialProgress, outcome: Outcome, reason: str, *, requested: bool) -> None:
    """Write the outcome of a trial that did not; a failure of training that it announced before stands."""
    payload: dict[str, Any] = {"outcome": str(outcome), "failure_step": None, "rules_held": []}
    payload |= {"requested": True} if requested else {}
    if trial.announced is not None:
        announced = str(trial.announced)
        payload = {"outcome": announced, "failure_step": trial.failure_step, "rules_held": [announced]}
    try:
        with Journal(trial.directory) as journal:
            journal.event(names.OUTCOME_EVENT, {**payload, "reason": reason, "known_good_step": None, "not_judged": []})
        trial.update()
    except FnostabError as error:  # a full disk, say; the others go on
        trial.outcome, trial.reason, trial.unwritten = outcome, f"{reason}; {error}", True
