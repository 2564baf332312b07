"""A trial that is handed out to a loop of the user's own.

This process does the work of both the supervisor (`fnostab.tasks.command.supervisor`) and the program.
"""

import logging
import os
import signal
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from fnostab.errors import JournalError, LaunchError
from fnostab.record.ending import close_program_trial
from fnostab.record.journal import Journal
from fnostab.record.outcomes import TRAINING_OUTCOMES, Outcome
from fnostab.record.process_end import ProcessEnd
from fnostab.record.progress import TrialProgress
from fnostab.record.recorder import (
    AFTER_FAILURE_VARIABLE,
    JOURNAL_VARIABLE,
    TOKEN_VARIABLE,
    Recorder,
    shared,
)
from fnostab.record.stderr_tail import STDERR_FILE
from fnostab.tasks.command.supervisor import begin_attempt, no_recorder

_log = logging.getLogger("fnostab.asking")

_last: "Trial | None" = None  # the trial handed out last; a process trains one at a time


def let_go_of_last() -> None:
    """Unlock the trial of an abandoned loop, which a notebook keeps alive with the error that ended the loop."""
    if _last is not None and _last._pid == os.getpid():
        if _last._recording:
            raise LaunchError(f"{_last.name} is being recorded by this process: end its `with trial.recorder()` first")
        _last.let_go()


class Trial:
    """One arm at one seed, handed out to be trained; its journal is locked until it has its outcome.

    Attributes:
        arm: name of the arm.
        seed: seed for everything random in the training.
        settings: settings of the arm, by name.
        directory: folder for the training's own files; PNG, CSV, JSON and text files in it are sent to MLflow.
        outcome: outcome of the trial; None until it is known.
        begun: whether `recorder` was called.
    """

    def __init__(self, progress: TrialProgress, settings: Mapping[str, Any]) -> None:
        global _last
        self.arm, self.seed, self.name = progress.arm, progress.seed, progress.name
        self.settings = dict(settings)
        self.directory = progress.directory / "files"
        self.outcome: Outcome | None = None
        self._spec = progress.spec
        self._journal: Journal | None = Journal(progress.directory)
        self.begun = self._recording = False
        self._pid = os.getpid()
        _last = self

    def __repr__(self) -> str:
        return f"<Trial {self.name}: {self.settings}>"

    @contextmanager
    def recorder(self) -> Iterator[Recorder]:
        """Record the training in this block, and judge it when the block ends. Call it once per trial.

        A `StabilityMonitor` and a `Recorder` that are created within the block write to the same journal.

        An error in the block is raised again, unless the training had already failed (``nonfinite``, or a failure that
        ``rec.failed`` announced) or memory ran out: these are outcomes, so the error is logged as a warning and the
        loop continues. After any other error the outcome is ``infra_error``, after Ctrl-C ``killed``; the trial is then
        handed out again.

        Raises:
            JournalError: the trial has been recorded or skipped already, or its journal can't be written.
            LaunchError: this process is recording another trial, or the trial can't be judged: it recorded nothing,
                lacks a metric of the outcome rules, or has the same values as another seed.
        """
        journal, self._journal = self._journal, None
        if journal is None:
            raise JournalError(f"{self.name} has already been recorded or skipped: take the next trial from the loop")
        if JOURNAL_VARIABLE in os.environ:
            journal.close()
            raise LaunchError(f"this process is already recording a trial: {os.environ[JOURNAL_VARIABLE]}")
        raised: BaseException | None = None
        self.begun = self._recording = True
        try:
            with journal, _interruptions() as interrupted:
                with _session(journal, self._spec.after_failure, begin_attempt(journal, self._spec)):
                    try:
                        with Recorder() as rec, shared(rec):
                            yield rec
                    except BaseException as error:  # raised or logged below, once the trial has its outcome
                        raised = error
                if os.getpid() != self._pid:  # a fork left the block: only its parent judges the trial
                    if raised is not None:
                        raise raised
                    return
                with no_recorder(journal.directory):
                    journal.take_back()
                    self.outcome = close_program_trial(
                        journal, self._spec, _end_of(raised, journal.directory, bool(interrupted))
                    )
        finally:
            self._recording = False
        progress = TrialProgress(self._spec, journal.directory)
        progress.update()
        if raised is None and self.outcome is Outcome.INFRA_ERROR:
            raise LaunchError(f"{self.name}: {progress.reason}")
        if isinstance(raised, Exception) and (self.outcome in TRAINING_OUTCOMES or self.outcome is Outcome.OOM):
            said = f"{type(raised).__name__}: {raised}"
            _log.warning("%s: %s (%s); the loop continues", self.name, self.outcome, said)
        elif raised is not None:
            raise raised
        elif self.outcome is Outcome.KILLED:  # the training caught Ctrl-C itself
            _log.warning("%s: killed (Ctrl-C before its last step); the loop continues", self.name)

    def let_go(self) -> None:
        """Unlock the journal of a trial that was not recorded."""
        journal, self._journal = self._journal, None
        if journal is not None:
            journal.close()


@contextmanager
def _session(journal: Journal, after_failure: str, token: str) -> Iterator[None]:
    """Lend a journal to recorders of this process; they find it by environment variables, as in a program."""
    journal.lend()
    own = {JOURNAL_VARIABLE: str(journal.directory), TOKEN_VARIABLE: token, AFTER_FAILURE_VARIABLE: after_failure}
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            os.environ.pop(name, None)


@contextmanager
def _interruptions() -> Iterator[list[int]]:
    """Collect the signals of Ctrl-C in this block: a training may catch it, and would then look finished."""
    signals: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def collect(signum: int, frame: FrameType | None) -> None:
        signals.append(signum)
        if callable(before):
            before(signum, frame)

    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield signals
        return
    signal.signal(signal.SIGINT, collect)
    try:
        yield signals
    finally:
        signal.signal(signal.SIGINT, before)


def _end_of(error: BaseException | None, directory: Path, interrupted: bool) -> ProcessEnd:
    """Describe the end of a training as a program's: exit status 0, or 1 after an error; asked to end after Ctrl-C.

    The error's traceback is written to the trial's stderr file.
    """
    if error is None:
        return ProcessEnd(0, interrupted, goes_on=True)
    with suppress(OSError), open(directory / STDERR_FILE, "a", encoding="utf-8") as log:  # the disk may be full
        log.write("".join(traceback.format_exception(error)))
    if isinstance(error, Exception):
        return ProcessEnd(1, interrupted, tail="".join(traceback.format_exception_only(error)), goes_on=True)
    return ProcessEnd(None, asked=True, goes_on=True)
