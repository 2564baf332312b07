"""The last attempt at a trial, read from its journal, and whether a process still works on it.

A trial that was killed may be tried again: its journal goes on after the outcome. MLflow has no
heartbeat, so a run whose process died would be RUNNING for ever if nobody looked.
"""

import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from fnostab.errors import FnostabError, JournalError
from fnostab.record import names
from fnostab.record import slurm_jobs as slurm
from fnostab.record.ending import ProcessEnd, Unwritten, conclude
from fnostab.record.files import is_held, open_regular
from fnostab.record.journal import FILE_NAME, LOCK_NAME, Event, Journal, Point, journal_file, read_journal
from fnostab.record.outcomes import TRAINING_OUTCOMES, Outcome
from fnostab.record.stderr_tail import tail_of
from fnostab.record.trial import TrialSpec

__all__ = [
    "STDERR_FILE",
    "Attempt",
    "close_if_abandoned",
    "end_of_abandoned",
    "end_program_trial",
    "is_alive",
    "is_being_written",
    "is_foreign",
    "is_of_elsewhere",
    "last_attempt",
    "last_lines",
    "may_be_at_work",
    "records_of_end",
    "starts_attempt",
    "this_process",
]

QUIET_S = 900  # after which a journal that is written on another host counts as abandoned
STDERR_FILE = "stderr.log"  # of a trial that a launcher started
TAIL_BYTES = 8192
LOCKS = (LOCK_NAME, "recorder.lock")  # of whoever is at work: the owner, and a program that records
LONGEST_ERROR = 400  # characters
COMMAND_WORDS = ("fnostab", "entrypoints")  # in the command lines of launchers and trials
_ERROR = re.compile(r"(error|[\w.]+(Error|Exception)): ")  # this command line's, and the end of a traceback


@dataclass
class Attempt:
    """One attempt at a trial, as its journal records it.

    Attributes:
        end: outcome event that closed the attempt; None while there is none.
        owner: 'pid@host' of the process at work.
        owner_since_ms: Unix time at which that process named itself.
        last_ms: Unix time of the last record.
        tags: tags that were set in the attempt.
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

    Args:
        journal: path.
        leave_out: takes a line on each record that can't be read; None makes the first one an error.

    Raises:
        JournalError: it can't be read.
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


def close_if_abandoned(directory: Path) -> bool:
    """Record an outcome for a trial whose process died without one; answer whether the trial has ended.

    For who goes on with the trial: a reader of the journal, which may be a copy, only asks for `records_of_end`.

    Raises:
        JournalError: the journal is damaged, or can't be written.
    """
    records = records_of_end(directory)
    if records:
        with Journal(directory) as writer:
            for record in records:
                writer.add(record)
    return records is not None


def records_of_end(
    directory: Path, last_sign_s: float = 0.0, leave_out: Callable[[str], None] | None = None
) -> list[Point | Event] | None:
    """Records that end a trial whose process died without an outcome, the outcome last; nothing is written.

    They have the time of the last record, so that every store and every call gives the trial the same end.

    Args:
        directory: of the trial.
        last_sign_s: Unix time of the last thing that is known of it from elsewhere.
        leave_out: as of `last_attempt`.

    Returns:
        None while the process may be at work; an empty list if the trial has an outcome.

    Raises:
        JournalError: the journal can't be read.
    """
    attempt = last_attempt(directory / FILE_NAME, leave_out)
    if attempt.end is not None:
        return []
    last_sign_s = max(last_sign_s, journal_file(directory).stat().st_mtime)
    if is_alive(attempt.owner, attempt.owner_since_ms, last_sign_s) or is_being_written(directory):
        return None
    unwritten = Unwritten(directory, attempt.last_ms)
    error = _last_error(directory, attempt.owner_since_ms)
    try:
        if end_program_trial(unwritten):
            return unwritten.records
    except FnostabError as damage:  # of its records, or of another seed's
        error = str(damage)
    unwritten.event(names.OUTCOME_EVENT, end_of_abandoned(attempt.tags, attempt.owner, error))
    return unwritten.records[-1:]


def is_of_elsewhere(directory: Path, leave_out: Callable[[str], None] | None = None) -> bool:
    """Whether a trial's last process ran on another host, and not in a job that this host's Slurm knows.

    What is at hand may then be a copy of a journal that is written there.
    """
    owner = last_attempt(directory / FILE_NAME, leave_out).owner
    job = slurm.job_of_owner(owner)
    return is_foreign(owner) and (job is None or slurm.is_queued(*job) is None)


def end_of_abandoned(tags: Mapping[str, str], owner: str | None, error: str | None = None) -> dict[str, Any]:
    """The outcome of an attempt whose process died without one, as an event's payload.

    ``killed``, or ``infra_error`` if the process left an error, or the end of its Slurm job. A failure of training
    that it announced before it died wins over these: leaving it out of the rates would flatter the arm.

    Args:
        tags: tags that the process set.
        owner: the process, as 'pid@host'.
        error: last line of its stderr, if that is an error.
    """
    announced = tags.get(names.OUTCOME) if tags.get(names.OUTCOME) in TRAINING_OUTCOMES else None
    step = tags.get(names.FAILURE_STEP)
    outcome, reason = Outcome.INFRA_ERROR if error else Outcome.KILLED, f": {error}" if error else ""
    reason = f"its process {owner or '(unknown)'} ended without recording an outcome{reason}"
    asked = False
    if (job := slurm.job_of_owner(owner)) and (end := slurm.end_of(*job)) and end.outcome is not Outcome.INFRA_ERROR:
        outcome, reason, asked = end.outcome, f"Slurm job {job[0]}: {end.state}", end.was_asked_to_end
    return {
        "outcome": str(announced or outcome),
        "failure_step": int(step) if announced and step is not None else None,
        "known_good_step": None,
        "rules_held": [str(announced)] if announced else [],
        "not_judged": [],
        "reason": reason,
    } | ({"requested": True} if asked else {})


def end_program_trial(journal: Journal | Unwritten, *, asked: bool = False) -> bool:
    """Judge and close a program's trial whose supervisor died first; return False if the trial runs no program."""
    if not (journal.directory / "trial.json").exists():
        return False
    spec = TrialSpec.read(journal.directory / "trial.json")
    if spec.argv is None:
        return False
    since_ms = last_attempt(journal.directory / FILE_NAME).owner_since_ms
    conclude(journal, spec, ProcessEnd(None, asked, tail_of(journal.directory / STDERR_FILE, since_ms)))
    return True


def is_alive(owner: str | None, since_ms: int | None = None, last_sign_s: float | None = None) -> bool:
    """Whether the process named ``owner``, 'pid@host', may still be at work.

    If the name holds a Slurm job, Slurm is asked for that job: an interrupted job is queued again. A process of this
    host is looked up; one that started after ``since_ms`` has merely been given the same number. A process of
    another host counts as alive for 15 minutes after its ``last_sign_s``; a sign from the future is none.

    Args:
        owner: as in the trial's owner tag; None if it is not known.
        since_ms: Unix time in milliseconds at which the process was at work.
        last_sign_s: Unix time in seconds of the last thing that it recorded.
    """
    if (job := slurm.job_of_owner(owner)) and (queued := slurm.is_queued(*job)) is not None:
        return queued
    if is_foreign(owner):
        return last_sign_s is not None and abs(time.time() - last_sign_s) < QUIET_S
    process = _process(owner)
    return process is not None and (since_ms is None or process.create_time() * 1000 <= since_ms + 1000)


def may_be_at_work(owner: str | None, last_sign_s: float) -> bool:
    """Whether a run's process may still be at work, judged without its journal, by its newest record in the store.

    A process of this program that started after that record may be a new attempt before its first new step. A run
    without an owner may be one whose process has not recorded its name yet.

    Args:
        owner: as of `is_alive`.
        last_sign_s: Unix time in seconds of the newest record.
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
        JournalError: the lock can't be tried.
    """
    if not (directory / FILE_NAME).exists():
        return False
    try:
        return any(is_held(directory / name) for name in LOCKS)
    except OSError as error:
        raise JournalError(f"can't lock {error.filename or directory}: {error.strerror or error}") from error


def this_process() -> str:
    """The value of the owner tag for this process."""
    return f"{os.getpid()}@{socket.gethostname()}"


def _process(owner: str | None) -> psutil.Process | None:
    """The process of this host that has the owner's number; None if there is none but a zombie."""
    pid, _, _ = (owner or "").partition("@")
    try:
        process = psutil.Process(int(pid))
        return None if process.status() == psutil.STATUS_ZOMBIE else process
    except (ValueError, OverflowError, psutil.Error):
        return None


def _last_error(directory: Path, since_ms: int | None) -> str | None:
    """Last line of ``stderr.log`` of an attempt that began at ``since_ms``, if that is an error."""
    log = directory / STDERR_FILE
    try:
        if since_ms is None or log.stat().st_mtime * 1000 < since_ms:
            return None
    except OSError:
        return None
    (last,) = last_lines(log, 1) or [""]
    return last[:LONGEST_ERROR] if _ERROR.match(last) else None


def last_lines(path: Path, n: int, since: int = 0) -> list[str]:
    """The last ``n`` non-empty lines of a log, from byte ``since`` on; empty if it can't be read."""
    try:
        with open_regular(path) as file:
            file.seek(max(os.fstat(file.fileno()).st_size - TAIL_BYTES, since))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()][-n:]
