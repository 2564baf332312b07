"""Storage of a `Recorder`: the journal of one trial, opened by the program that the trial runs.

The process that opens it holds ``recorder.lock`` until it closes it; the supervisor, which holds ``journal.lock``,
does not write meanwhile. Uses only the standard library.
"""

import errno
import fcntl
import math
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fnostab.errors import JournalError, os_errors_as
from fnostab.record import names
from fnostab.record.lines import FILE_NAME, Event, Point, encode, read_lines
from fnostab.record.numbers import number, whole
from fnostab.record.outcome_tags import outcome_tags

ATTEMPT = "fnostab.attempt"  # tag: token of the current attempt
RECORDED_EVENT = "recorded"  # the program closed its record itself: step
RECORDER_LOCK = "recorder.lock"
STEPS_RISE = "steps must rise; go on counting in the next epoch, as in epoch * len(loader) + i"
_TWICE = re.compile("^val/val_")


class Recording:
    """Journal of a trial, opened for the attempt with the given token.

    Attributes:
        last_step: last step of this attempt; None before the first.
        announced: whether this attempt announced a failure.

    Raises:
        JournalError: another process records, the token is not the newest attempt's, or the journal can't be written.
    """

    def __init__(self, directory: Path, token: str) -> None:
        self.path = directory / FILE_NAME
        self.last_step: int | None = None
        self.announced = False
        self._last_validation: int | None = None
        self._validated: set[str] = set()  # names recorded at that validation
        self._latest: dict[str, int] = {}
        self._earlier: dict[str, int] = {}  # the same, when the journal was opened
        self._time_ms = 0
        self._restarted = False
        with os_errors_as(JournalError, f"can't write {self.path}"):
            self._lock = os.open(directory / RECORDER_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._continue(token)
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except BaseException as error:
            os.close(self._lock)
            if isinstance(error, BlockingIOError):
                raise JournalError(
                    f"{directory} is already being recorded: only one process may record a trial, with one Recorder or "
                    "one StabilityMonitor"
                ) from None
            if isinstance(error, OSError):
                raise JournalError(f"can't write {self.path}: {error.strerror or error}") from error
            raise

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Append the metrics of a step, except those that an earlier attempt recorded.

        Raises:
            JournalError: the step does not rise, or the journal can't be written.
        """
        if self.last_step is not None and step <= self.last_step:
            raise JournalError(f"step {step} comes after step {self.last_step}: {STEPS_RISE}")
        self._point(step, values)
        self.last_step = step

    def validation(self, step: int, values: Mapping[str, float]) -> None:
        """Append a validation's metrics and force them to disk; a step may have several, with distinct names.

        Raises:
            JournalError: the step does not rise, or the journal can't be written.
        """
        last = self._last_validation
        before = self._validated if step == last else set()
        if last is not None and (step < last or before & values.keys()):
            raise JournalError(f"validation {step} comes after validation {last}: {STEPS_RISE}")
        self._point(step, values)
        self._last_validation, self._validated = step, before | values.keys()
        self._sync()

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Append a monitor's metrics of a step, possibly in several calls; ``val_loss`` as ``val/loss``.

        Raises:
            JournalError: the step is not an integer from 0, a value is not a number, or the journal can't be written.
        """
        numbers = {_TWICE.sub(names.VAL_PREFIX, name): number(name, value) for name, value in values.items()}
        self._point(whole("record", step), numbers)

    def announce(self, outcome: str, step: int) -> None:
        """Tag the trial as failed at a step, unless it already is."""
        if not self.announced:
            self.event(names.TAGS_EVENT, outcome_tags({"outcome": outcome, "failure_step": step}))
            self.announced = True

    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        """Append one event and force everything written so far to disk."""
        self._append(Event(self._now(), name, payload))
        self._sync()

    def close(self) -> None:
        """Close the file and release the lock."""
        os.close(self._file)
        self._file = -1  # the descriptor may soon be reused
        fcntl.flock(self._lock, fcntl.LOCK_UN)  # forks may hold it open
        os.close(self._lock)

    def _point(self, step: int, values: Mapping[str, float]) -> None:
        latest = self._latest
        finite, others, repeats = {}, {}, False
        for name, value in values.items():
            if latest.get(name, -1) >= step:
                repeats |= self._earlier.get(name, -1) >= step
                continue
            if math.isfinite(value):
                finite[name] = value
            else:
                others[name] = repr(value)
        if repeats and not self._restarted:
            self._restarted = True
            self.event(names.TAGS_EVENT, {names.RESTARTED: "true"})
        if finite or others:
            self._append(Point(self._now(), step, finite, others))
            for name in (*finite, *others):
                latest[name] = step

    def _now(self) -> int:
        self._time_ms = max(self._time_ms, time.time_ns() // 1_000_000)
        return self._time_ms

    def _append(self, record: Point | Event) -> None:
        data = encode(record)
        with os_errors_as(JournalError, f"can't write {self.path}", "free some space"):
            if os.write(self._file, data) != len(data):
                os.ftruncate(self._file, self._size)  # leave no partial line before the next one
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += len(data)

    def _sync(self) -> None:
        with os_errors_as(JournalError, f"can't write {self.path}"):
            os.fsync(self._file)

    def _continue(self, token: str) -> None:
        """Read the trial's last step and cut off the torn line of a process that died."""
        newest = None
        self._size = 0
        for record, end in read_lines(self.path):
            self._size, self._time_ms = end, max(self._time_ms, record.time_ms)
            if isinstance(record, Point):
                recorded = [*record.values, *record.nonfinite]
                self._latest.update(dict.fromkeys(recorded, record.step))
                if all(name.startswith(names.VAL_PREFIX) for name in recorded):
                    before = self._validated if record.step == self._last_validation else set()
                    self._last_validation, self._validated = record.step, before.union(recorded)
                else:
                    self.last_step = record.step
            elif record.name == names.TAGS_EVENT:
                if ATTEMPT in record.payload:
                    newest = record.payload[ATTEMPT]
                    self.last_step = self._last_validation = None
                    self.announced = False
                self.announced |= names.FAILURE_STEP in record.payload
                self._restarted |= names.RESTARTED in record.payload
            elif record.name == RECORDED_EVENT and record.payload.get("step") is not None:
                self.last_step = record.payload["step"]  # of this attempt, which may not repeat its own steps
        if newest != token:
            raise JournalError(
                f"{self.path.parent} is at another attempt than this process: end this process; `fnostab run` starts "
                "the next"
            )
        self._earlier = dict(self._latest)
        if self._size < os.stat(self.path).st_size:
            os.truncate(self.path, self._size)
