"""Supervise the program of a trial: start it, pass signals on, end its remaining processes, judge its records.

The supervisor writes the journal before and after the program; in between the program's Recorder does. The
supervisor holds ``journal.lock`` throughout, and the program inherits it: if only the supervisor dies, the program
keeps recording, and nobody starts the trial again before the program has ended.
"""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout

import fnostab
from fnostab.errors import JournalError, LaunchError
from fnostab.record import names
from fnostab.record.attempt import last_attempt, this_process
from fnostab.record.ending import close_program_trial
from fnostab.record.journal import Journal
from fnostab.record.lines import FILE_NAME
from fnostab.record.outcomes import Outcome
from fnostab.record.process_end import ProcessEnd
from fnostab.record.program_journal import ATTEMPT, RECORDER_LOCK
from fnostab.record.recorder import AFTER_FAILURE_VARIABLE, JOURNAL_VARIABLE, TOKEN_VARIABLE
from fnostab.record.stderr_tail import HELD_ELSEWHERE, STDERR_FILE, StderrTail
from fnostab.record.trial import TrialSpec
from fnostab.tasks.command.members import ask_to_end, end_all
from fnostab.tracking.environment import given

GRACE_S = 15.0  # between asking a program to end and killing it
LEFT_BEHIND_GRACE_S = 2.0  # the same for processes that it leaves behind
RECORDER_WAIT_S = 30.0
DROPPED = ("MLFLOW_RUN_ID", "RANK", "WORLD_SIZE", "LOCAL_RANK")
DROPPED_PREFIXES = ("SLURM_", "MASTER_")


def supervise(spec: TrialSpec, directory: Path) -> Outcome:
    """Run the program of a trial and record its outcome.

    SIGTERM or SIGINT to this process asks the program to end; a second SIGINT ends it at once.

    Raises:
        LaunchError: the trial has no program.
        JournalError: another process is at work on the trial, or its journal can't be written.
    """
    if spec.argv is None:
        raise LaunchError(f"trial {spec.name} of the task {spec.task} has no command")
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        asked = stack.enter_context(_signals())
        with no_recorder(directory, wait_s=0.0):  # before the journal is opened: that cuts off a torn line
            journal = stack.enter_context(Journal(directory))
            end_program(directory)  # processes of an earlier attempt whose supervisor died
            token = begin_attempt(journal, spec)
        lock = journal.lend()
        with StderrTail(directory / STDERR_FILE) as stderr:
            try:
                return_code = None if asked.at else _run(spec, directory, token, lock, stderr, asked)
            except (OSError, ValueError) as error:  # ValueError: a null byte
                what = getattr(error, "strerror", None) or error
                return_code, folder = 127, spec.working_directory or Path.cwd()
                stderr.say(f"error: can't start {spec.argv[0]!r}: {what}; it must be on PATH, or a path from {folder}")
        with no_recorder(directory):
            journal.take_back()
            return close_program_trial(journal, spec, ProcessEnd(return_code, asked.at is not None, stderr.text))


def begin_attempt(journal: Journal, spec: TrialSpec) -> str:
    """Write the start of an attempt that this process owns, and create the program's folder; return its token.

    Raises:
        JournalError: the journal can't be written.
    """
    token = secrets.token_hex(8)
    journal.event(names.PARAMS_EVENT, {**spec.settings, "seed": spec.seed, "arm": spec.arm})
    tags = {names.OWNER: this_process(), names.VERSION: fnostab.__version__, ATTEMPT: token}
    journal.event(names.TAGS_EVENT, tags)
    (journal.directory / "files").mkdir(exist_ok=True)
    return token


def end_program(directory: Path) -> None:
    """End all processes of the newest attempt at a trial whose supervisor has died.

    Raises:
        JournalError: its journal is damaged.
    """
    if token := last_attempt(directory / FILE_NAME).tags.get(ATTEMPT):
        end_all(None, token, LEFT_BEHIND_GRACE_S)


def was_asked_to_end(directory: Path) -> bool:
    """Whether the newest attempt at a trial ended because its supervisor was asked to end it.

    Raises:
        JournalError: its journal is damaged.
    """
    end = last_attempt(directory / FILE_NAME).end
    return end is not None and bool(end.payload.get("requested"))


@dataclass
class _Asked:
    """Requests to end that this process received, and the process group that it passes them on to."""

    at: float | None = None
    at_once: bool = False
    group: int | None = None

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self.at_once = self.at is not None and signum == signal.SIGINT
        self.at = self.at or time.monotonic()
        signal.signal(signal.SIGTERM, _nothing)  # it is sent to the group, which may include this process
        self.pass_on()

    def pass_on(self) -> None:
        if self.group is not None and self.at is not None:
            ask_to_end(self.group)

    @property
    def out_of_patience(self) -> bool:
        return self.at_once or (self.at is not None and time.monotonic() - self.at > GRACE_S)


def _nothing(signum: int, frame: FrameType | None) -> None:
    """Ignore a signal; unlike SIG_IGN, this is not inherited by a program."""


@contextmanager
def _signals() -> Iterator[_Asked]:
    """Take SIGTERM and SIGINT as requests to end the program; in the main thread only."""
    asked, before = _Asked(), {}
    with suppress(ValueError):  # not the main thread
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, asked)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(spec: TrialSpec, directory: Path, token: str, lock: int, stderr: StderrTail, asked: _Asked) -> int:
    """Run the program; return its exit status once none of its processes is left."""
    assert spec.argv is not None
    leads = os.getsid(0) == os.getpid()  # else the group is a terminal's or another program's too
    process = subprocess.Popen(
        spec.argv,
        cwd=spec.working_directory,
        env=_environment(spec, directory, token),
        stdin=subprocess.DEVNULL,
        stderr=stderr.target,
        pass_fds=(lock,),
        process_group=None if leads else 0,
    )
    group = asked.group = os.getpgrp() if leads else process.pid
    try:
        asked.pass_on()  # a request that came while it was started
        while True:
            try:
                return_code = process.wait(timeout=1.0)
                break
            except subprocess.TimeoutExpired:
                if asked.out_of_patience:
                    end_all(group, token, 0.0)
    finally:
        asked.group = None
        sys.stdout.flush()
        end_all(group, token, LEFT_BEHIND_GRACE_S)
        process.wait()
    return return_code


def _environment(spec: TrialSpec, directory: Path, token: str) -> Mapping[str, str]:
    """Environment of the program, without the variables of this process's own MLflow run, Slurm job or rank."""
    kept: dict[str, Any] = {
        name: value for name, value in given().items() if name not in DROPPED and not name.startswith(DROPPED_PREFIXES)
    }
    own = {JOURNAL_VARIABLE: str(directory.resolve()), TOKEN_VARIABLE: token}
    return kept | own | {AFTER_FAILURE_VARIABLE: spec.after_failure}


@contextmanager
def no_recorder(directory: Path, wait_s: float = RECORDER_WAIT_S) -> Iterator[None]:
    """Wait until no program records the trial, and keep recorders out during the block.

    Raises:
        JournalError: a program still records it after ``wait_s`` seconds.
    """
    lock = FileLock(directory / RECORDER_LOCK)
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        raise JournalError(f"{directory} is still being recorded by a program{HELD_ELSEWHERE}") from None
    except OSError as error:
        raise JournalError(f"can't lock {directory}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()
