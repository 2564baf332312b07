"""Run trials as processes of this machine, several at once."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from fnostab.errors import LaunchError, os_errors_as
from fnostab.gpus import count_gpus, visible_gpus
from fnostab.launch.calls import call_with, new_process
from fnostab.launch.fork_server import Forked, ForkServer
from fnostab.launch.launcher import jobs_of, write_outcome
from fnostab.record.attempt import is_being_written
from fnostab.record.folders import TRIAL_FILE
from fnostab.record.process_end import Ending, ProcessEnd, how_it_ended
from fnostab.record.progress import TrialProgress
from fnostab.record.stderr_tail import STDERR_FILE, tail_of
from fnostab.record.trial import Resources
from fnostab.tracking.environment import given

WIDTH = 80  # of printed lines
GRACE_S = 20.0  # between asking a trial to end and ending it
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def default_jobs(gpu: bool, *, one_a_core: bool = True) -> int:
    """One process per visible GPU; else one per core (faster than fewer processes with more threads), or one in all."""
    gpus = count_gpus() if gpu else 0
    if gpus or not one_a_core:
        return gpus or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class _Job:
    """Running trials of one process. ``process`` is None if it can't be waited for, such as another launcher's."""

    trials: Sequence[TrialProgress]
    slot: int
    process: subprocess.Popen[bytes] | Forked | None = None
    asked_to_end: bool = False
    log_start: int = 0  # offset of this attempt's output in stderr.log

    @property
    def log(self) -> Path:
        return self.trials[0].directory / STDERR_FILE

    def was_refused(self) -> bool:
        """Whether forking failed, so that a separate process must be started."""
        process = self.process
        return isinstance(process, Forked) and process.was_refused and not self.asked_to_end

    def has_ended(self) -> bool:
        if isinstance(self.process, Forked) and self.process.gone and not self.was_refused():
            self.process = None
        if self.process is not None and self.process.poll() is None:
            return False
        if not any(is_being_written(trial.directory) for trial in self.trials):
            return True
        self.process = None  # another launcher's process was faster
        return False


class LocalLauncher:
    """Launcher that starts trials as ``python -m fnostab train --trial FILE ...`` on this machine.

    On a CPU under Linux, trials are forks of one process with the imports done, see `fnostab.launch.fork_server`.
    A trial that another launcher started and that still runs is adopted: waited for, not
    started again. If a process dies without writing an outcome, the launcher writes it.

    Args:
        jobs: number of concurrent processes.
        gpu: whether trials train on GPUs if there are any, distributed over them in turn.
        lockstep: number of seeds of an arm that share a process, if the task supports it.
        live: let trials write to this terminal instead of their logs.
        forks: whether to fork trials on a CPU from one process if possible.
    """

    here = True
    trouble: str | None = None
    leaving = "stopping the running trials; the same command resumes them"

    def __init__(self, jobs: int, gpu: bool, lockstep: int = 1, *, forks: bool = True, live: bool = False) -> None:
        for name, number in (("jobs", jobs), ("lockstep", lockstep)):
            if number < 1:
                raise LaunchError(f"{name}={number}: at least 1 is needed")
        self.jobs = jobs * lockstep
        self.trials_per_job = lockstep
        self.lockstep = lockstep > 1
        self._processes = jobs
        self._gpu_names = visible_gpus() if gpu else []
        self.gpus = len(self._gpu_names)
        self.live = live
        self._running: list[_Job] = []
        self._forks = forks and not self.gpus and sys.platform == "linux"  # CUDA can't be forked
        self._server: ForkServer | None = None

    @property
    def free(self) -> int:
        """Number of further processes that can be started now."""
        return self._processes - len(self._running)

    def call(self, place: str, given: Mapping[str, Any], resources: Resources) -> Any:
        """Call a function in another process: a fork where trials are forked, else a new one; see `call_with`."""

        def fork(folder: Path, log: IO[bytes]) -> int:
            process = self._fork_server(self._environment(resources), resources.preloads).call(folder, Path(log.name))
            try:
                status = process.wait()
            except BaseException:
                process.kill()
                raise
            if status is not None:
                return status
            self._forks = False  # the server refused to fork, or was killed and the fork with it
            return new_process(folder, log)

        return call_with(fork if self._forks and resources.preloads else new_process, place, given)

    def import_ahead(self, resources: Resources) -> None:
        """Start the imports of trials and calls, while this process does something else."""
        if self._forks and resources.preloads:
            with contextlib.suppress(OSError):  # the first call will say it
                self._fork_server(self._environment(resources), resources.preloads)

    def submit(self, trials: Sequence[TrialProgress]) -> None:
        """Start trials in one process, or adopt those already running.

        Raises:
            LaunchError: the process can't be started.
        """
        adopted = [trial for trial in trials if is_being_written(trial.directory)]
        started = [trial for trial in trials if trial not in adopted]
        for together in [[trial] for trial in adopted] + ([started] if started else []):
            job = _Job(together, min(set(range(self.jobs)) - {job.slot for job in self._running}))
            if together is started:
                self._start(job)
            self._running.append(job)

    def poll(self) -> list[TrialProgress]:
        """Trials whose process has ended since the last call, each with its outcome in its journal."""
        for job in self._running:
            if job.was_refused():
                self._forks = False
                self._start(job)
        ended = [job for job in self._running if job.has_ended()]
        for job in ended:
            self._running.remove(job)
            for trial in job.trials:
                trial.update()
                if trial.outcome is None:
                    write_outcome(trial, _ending_of(job, trial))
        return [trial for job in ended for trial in job.trials]

    def preview(self, trials: Sequence[TrialProgress]) -> str:
        """Name the trials that would be started, those of one process joined by +."""
        waiting = [trial for trial in trials if not is_being_written(trial.directory)]
        return textwrap.fill(", ".join("+".join(t.name for t in job) for job in jobs_of(waiting, self)), WIDTH)

    def leave(self) -> None:
        """End the trials, since no launcher would be left to record how they ended."""
        self.cancel()

    def cancel(self) -> list[TrialProgress]:
        """End the trials that this launcher started; they write ``killed``. Adopted trials continue.

        Ctrl-C during the wait ends them at once.
        """
        started = [job.process for job in self._running if job.process is not None]
        deadline = time.monotonic() + GRACE_S
        try:
            for job in self._running:
                if job.process is not None:
                    job.asked_to_end = True
                    job.process.terminate()
            for process in started:
                process.wait(max(0.0, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            for process in started:
                _kill_group(process)
        for process in started:
            process.wait()
        return self.poll()

    def _start(self, job: _Job) -> None:
        environment = self._environment(job.trials[0].spec.resources)
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpu_names[job.slot % self.gpus]
        start = self._fork if self._forks and not self.live and job.trials[0].spec.resources.preloads else _spawn
        with os_errors_as(LaunchError, f"can't start {job.trials[0].name}"), open(job.log, "ab") as log:
            if start is _spawn and self._server is not None:
                log.write(self._server.output())  # which says why it could not fork
                log.flush()
            job.log_start = log.tell()
            job.process = start(job, environment, None if self.live else log)

    def _environment(self, resources: Resources) -> dict[str, str]:
        threads = None if self.gpus else resources.threads
        return given() | ({} if threads is None else dict.fromkeys(THREADS, str(threads)))

    def _fork(self, job: _Job, environment: Mapping[str, str], log: IO[bytes] | None) -> Forked:
        server = self._fork_server(environment, job.trials[0].spec.resources.preloads)
        return server.train([trial.directory / TRIAL_FILE for trial in job.trials], job.log)

    def _fork_server(self, environment: Mapping[str, str], preloads: Sequence[str]) -> ForkServer:
        if self._server is not None:
            self._server.listen(0.0)  # it may have died
        if self._server is None or self._server.status is not None:
            self._server = ForkServer(environment, preloads)
        return self._server


def _kill_group(process: subprocess.Popen[bytes] | Forked) -> None:
    """Kill a trial at once with its child processes: each trial leads its own process group."""
    if isinstance(process, Forked):
        process.kill()
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _spawn(job: _Job, environment: Mapping[str, str], log: IO[bytes] | None) -> subprocess.Popen[bytes]:
    # Own session: Ctrl-C reaches only the launcher, which then asks its trials to end.
    return subprocess.Popen(
        _command(job.trials), env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )


def _command(trials: Sequence[TrialProgress]) -> list[str]:
    files = [part for trial in trials for part in ("--trial", str(trial.directory / TRIAL_FILE))]
    return [sys.executable, "-m", "fnostab", "train", *files]


def _ending_of(job: _Job, trial: TrialProgress) -> Ending:
    if job.process is None:
        return how_it_ended(ProcessEnd(None, owner=trial.owner))
    code = job.process.returncode
    ending = how_it_ended(ProcessEnd(code, job.asked_to_end, tail_of(job.log, job.log_start)))
    asked = code in (-signal.SIGTERM, -signal.SIGINT)  # the process may not yet have handled the signal
    return replace(ending, requested=ending.requested or asked)
