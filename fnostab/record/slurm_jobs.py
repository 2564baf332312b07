"""Query the state of this user's jobs through Slurm's own commands.

The queue (``squeue``) lists waiting and running jobs; accounting (``sacct``) tells how finished ones ended. A job
that is requeued after preemption, a time limit or a node failure keeps its number and stays in the queue. An
element of a job array is named "123_4", a single job "123".
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache

from fnostab.record.outcomes import Outcome

PROGRAMS = ("sbatch", "srun", "squeue", "sacct", "scancel", "scontrol")
TIMEOUT_S = 60  # per command: a busy controller is slow
QUEUE_AGE_S = 10.0  # reuse of an answer about the queue, to spare the shared controller
MOST_AT_ONCE = 200  # jobs per command
ASKED_TO_END = ("CANCELLED", "DEADLINE", "PREEMPTED", "REVOKED", "TIMEOUT")  # for reasons outside the trial
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")
UNFINISHED = ("", "COMPLETING", "CONFIGURING", "PENDING", "REQUEUED", "RESIZING", "RUNNING", "SUSPENDED")
_OWNER = re.compile(r"\d+@\S+ in Slurm job (\S+) of (\S+)")


class SlurmError(Exception):
    """Error with Slurm's own message: it does not answer, or refuses."""


@dataclass(frozen=True)
class JobAccount:
    """Accounting record of a job.

    Attributes:
        state: Slurm's state, such as TIMEOUT, without additions ("CANCELLED by 1000" is CANCELLED).
        exit_code: status and signal, such as "1:0".
        node: node on which it ran; empty if it never ran.
    """

    state: str
    exit_code: str
    node: str

    @property
    def has_ended(self) -> bool:
        """Whether the job has ended, according to accounting."""
        return self.state not in UNFINISHED

    @property
    def was_asked_to_end(self) -> bool:
        """Whether a person or Slurm ended the job from outside (cancelled, preempted, out of time)."""
        return self.state in ASKED_TO_END

    @property
    def outcome(self) -> Outcome:
        """Outcome of a trial whose job ended before the trial wrote an outcome."""
        if self.state == "OUT_OF_MEMORY":
            return Outcome.OOM
        return Outcome.INFRA_ERROR if self.state in ("FAILED", "COMPLETED") else Outcome.KILLED


def is_here() -> bool:
    """Whether Slurm's commands are on PATH."""
    return all(shutil.which(name) for name in PROGRAMS)


@cache
def settings() -> Mapping[str, str]:
    """Configuration of the controller, as ``{"ClusterName": "perlmutter", ...}``.

    Raises:
        SlurmError: the controller does not answer.
    """
    lines = (line.partition("=") for line in _run("scontrol", "show", "config").splitlines())
    return {name.strip(): value.strip() for name, equals, value in lines if equals}


def queue(*, fresh: bool = False) -> Mapping[str, str]:
    """This user's waiting and running jobs, as ``{"123_4": "PENDING", ...}``; ``fresh`` skips the cached answer.

    Raises:
        SlurmError: the controller does not answer.
    """
    if fresh:
        forget_queue()
    return _queue(int(time.monotonic() / QUEUE_AGE_S))


def forget_queue() -> None:
    """Discard the cached answer, so that the next call of `queue` asks Slurm."""
    _queue.cache_clear()


def accounts_of(jobs: Collection[str]) -> dict[str, JobAccount]:
    """Read Slurm's accounting records of jobs, by name; it may lag by some seconds and need not know every job.

    Raises:
        SlurmError: Slurm does not answer.
    """
    found: dict[str, JobAccount] = {}
    for some in _portions({job.partition("_")[0] for job in jobs}):
        columns = "--format=JobID,State,ExitCode,NodeList"
        for line in _run("sacct", "--noheader", "--parsable2", columns, f"--jobs={','.join(some)}").splitlines():
            name, state, exit_code, node = line.split("|")
            job, _, step = name.partition(".")
            state, node = (state.split() or [""])[0], "" if node == "None assigned" else node
            if not step or (state == "OUT_OF_MEMORY" and job in found):  # the job itself may only say FAILED
                found[job] = JobAccount(state, exit_code, node)
    return {job: found[job] for job in jobs if job in found}


def end_of(job: str, cluster: str) -> JobAccount | None:
    """End of a cluster's job; None if it has not ended, or Slurm can't tell."""
    try:
        known = accounts_of([job]).get(job) if is_here() and settings().get("ClusterName") == cluster else None
    except SlurmError:
        return None
    return known if known is not None and known.has_ended else None


def find_job(name: str) -> str | None:
    """Number of the queued or ended job or job array called ``name``; None if there is none.

    Raises:
        SlurmError: Slurm does not answer.
    """
    of_queue = ("squeue", "--me", "--noheader", "--format=%F", f"--name={name}")
    of_accounting = ("sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID", f"--name={name}")
    for question in (of_queue, (*of_accounting, "--starttime=now-30days")):
        if found := _run(*question).split():
            return found[0].partition("_")[0]
    return None


def cancel(jobs: Collection[str]) -> None:
    """Cancel jobs; one that has already ended is no error.

    Raises:
        SlurmError: Slurm refuses.
    """
    for some in _portions(jobs):
        _run("scancel", "--quiet", *some)


def anybodys_queue(arrays: Collection[str]) -> dict[str, str]:
    """Like `queue`, for arrays of any user, given by number; clusters may hide other users' jobs."""
    found: dict[str, str] = {}
    for number in sorted(arrays):
        try:
            found |= _parse_queue(_run("squeue", "--array", "--noheader", "--format=%i|%T", f"--jobs={number}"))
        except SlurmError:  # Slurm no longer knows the job
            continue
    return found


def is_queued(job: str, cluster: str) -> bool | None:
    """Whether any user's job on a cluster waits or runs; None if Slurm can't tell."""
    try:
        if not is_here() or settings().get("ClusterName") != cluster:
            return None
        if job in queue() or job in anybodys_queue([job.partition("_")[0]]):
            return True
    except SlurmError:
        return None
    return None if end_of(job, cluster) is None else False


def this_job() -> str | None:
    """Job of this process that a launcher submitted, as "123_4 of perlmutter"; None elsewhere."""
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm":
        return None
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{index}" if array else os.environ.get("SLURM_JOB_ID")
    return f"{job} of {os.environ.get('SLURM_CLUSTER_NAME', '?')}"


def job_of_owner(owner: str | None) -> tuple[str, str] | None:
    """Parse job and cluster from an owner, "77@node7 in Slurm job 123_4 of perlmutter"; None if it names no job."""
    found = _OWNER.fullmatch(owner or "")
    return (found[1], found[2]) if found else None


@lru_cache(maxsize=1)
def _queue(moment: int) -> Mapping[str, str]:
    return _parse_queue(_run("squeue", "--me", "--array", "--noheader", "--format=%i|%T"))


def _parse_queue(answer: str) -> dict[str, str]:
    return dict(line.split("|") for line in answer.split())


def _portions(jobs: Collection[str]) -> Iterator[list[str]]:
    ordered = sorted(jobs)
    for start in range(0, len(ordered), MOST_AT_ONCE):
        yield ordered[start : start + MOST_AT_ONCE]


def _run(*command: str) -> str:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmError(f"{command[0]} does not answer: {error}") from error
    if answer.returncode:
        said = " ".join(answer.stderr.split()) or f"exit status {answer.returncode}"
        raise SlurmError(f"{command[0]}: {said.removeprefix(f'{command[0]}: ').removeprefix('error: ')}")
    return answer.stdout
