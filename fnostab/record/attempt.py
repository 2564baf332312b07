"""Read the last attempt at a trial from its journal, and tell whether a process still works on it.

A killed trial may be retried: its journal continues after the outcome. MLflow has no heartbeat,
so without this check a run whose process died would stay RUNNING forever.
"""

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from fnostab.errors import JournalError
from fnostab.record import names
from fnostab.record import slurm_jobs as slurm
from fnostab.record.journal import LOCK_NAME, read_journal
from fnostab.record.lines import FILE_NAME, Event, Point
from fnostab.record.outcomes import TRAINING_OUTCOMES
from fnostab.record.safe_files import is_held

QUIET_S = 900  # a journal written on another host counts as abandoned after this long without a record
LOCKS = (LOCK_NAME, "recorder.lock")  # held by the owner, and by a program that records
COMMAND_WORDS = ("fnostab", "entrypoints")  # found in the command lines of launchers and trials


@dataclass
class Attempt:
    """One attempt at a trial, as its journal records it.

    Attributes:
        end: outcome event that closed the attempt; None while it is open.
        owner: 'pid@host' of the process that works on it.
        owner_since_ms: Unix time in milliseconds at which that process recorded its name.
        last_ms: Unix time of the last record in milliseconds.
    """

    end: Event | None = None
    owner: str | None = None
    owner_since_ms: int | None = None
    last_ms: int = 0
    tags: dict[str, Any] = field(default_factory=dict)

    def may_be_tried_again(self) -> bool:
        """Whether it ended without a training outcome."""
        return self.end is not None and self.end.payload.get("outcome") not in TRAINING_OUTCOMES


def starts_attempt(record: Point | Event) -> bool:
    """Whether a record that follows an outcome begins another attempt."""
    return isinstance(record, Point) or (record.name == names.TAGS_EVENT and names.OWNER in record.payload)


def last_attempt(journal: Path, leave_out: Callable[[str], None] | None = None) -> Attempt:
    """Read the last attempt from a journal.

    ``leave_out`` is called with a message for each unreadable record; without it the first one is an error.

    Raises:
        JournalError: the journal can't be read.
    """
    attempt, last_ms = Attempt(), 0
    for record, _ in read_journal(journal, leave_out=leave_out):
        last_ms = record.time_ms
        if attempt.may_be_tried_again() and starts_attempt(record):
            attempt = Attempt()
        if isinstance(record, Point):
            continue
        if record.name == names.TAGS_EVENT:
            attempt.tags.update(record.payload)
            if names.OWNER in record.payload:
                attempt.owner, attempt.owner_since_ms = record.payload[names.OWNER], record.time_ms
        elif record.name == names.OUTCOME_EVENT:
            attempt.end = record
    attempt.last_ms = last_ms
    return attempt


def is_of_elsewhere(owner: str | None) -> bool:
    """Whether a process ran on another host, outside any job that this host's Slurm knows.

    Its local journal may then be a copy of one that is still being written there.
    """
    job = slurm.job_of_owner(owner)
    return is_foreign(owner) and (job is None or slurm.is_queued(*job) is None)


def is_alive(owner: str | None, since_ms: int | None = None, last_sign_s: float | None = None) -> bool:
    """Whether the process named ``owner``, 'pid@host', may still be at work.

    If the name holds a Slurm job, Slurm is asked about that job, because interrupted jobs are requeued. A process of
    this host is looked up; one that started after ``since_ms`` merely reuses the process ID. A process of another
    host counts as alive for 15 minutes after ``last_sign_s``; a time in the future is ignored.
    """
    if (job := slurm.job_of_owner(owner)) and (queued := slurm.is_queued(*job)) is not None:
        return queued
    if is_foreign(owner):
        return last_sign_s is not None and abs(time.time() - last_sign_s) < QUIET_S
    process = _process(owner)
    return process is not None and (since_ms is None or process.create_time() * 1000 <= since_ms + 1000)


def may_be_at_work(owner: str | None, last_sign_s: float) -> bool:
    """Whether a run's process may still be at work, judged by its newest record in the store, without its journal.

    A process of this program that started after that record (Unix time) may be a new attempt that has not recorded a
    step yet. The process of a run without an owner may not have recorded its name yet.
    """
    if owner is None:
        return abs(time.time() - last_sign_s) < QUIET_S
    if is_alive(owner, int(last_sign_s * 1000), last_sign_s):
        return True
    process = None if is_foreign(owner) or owner == this_process() else _process(owner)
    try:
        return process is not None and any(word in part for part in process.cmdline() for word in COMMAND_WORDS)
    except psutil.Error:
        return False


def is_foreign(owner: str | None) -> bool:
    """Whether a process runs on another host."""
    pid, _, host = (owner or "").partition(" ")[0].partition("@")
    return pid.isdecimal() and host != socket.gethostname()


def is_being_written(directory: Path) -> bool:
    """Whether a process has the trial's journal open, on this machine or another that shares the disk.

    Raises:
        JournalError: the lock can't be tested.
    """
    if not (directory / FILE_NAME).exists():
        return False
    try:
        return any(is_held(directory / name) for name in LOCKS)
    except OSError as error:
        raise JournalError(f"can't lock {error.filename or directory}: {error.strerror or error}") from error


def this_process() -> str:
    """Owner tag of this process."""
    return f"{os.getpid()}@{socket.gethostname()}"


def _process(owner: str | None) -> psutil.Process | None:
    """Process of this host with the owner's process ID; None if there is none, or only a zombie."""
    pid, _, _ = (owner or "").partition("@")
    try:
        process = psutil.Process(int(pid))
        return None if process.status() == psutil.STATUS_ZOMBIE else process
    except (ValueError, OverflowError, psutil.Error):
        return None
