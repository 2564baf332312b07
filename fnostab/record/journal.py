"""Append-only journal of one trial, written to local disk before anything is sent elsewhere.

One record per line, see `fnostab.record.lines`.

An old journal may have been archived: it is read as before, and a writer restores it first.

A process that dies while writing leaves a torn last line, which readers ignore and the next
writer cuts off. A damaged line anywhere else is an error, never skipped silently.
"""

import errno
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from filelock import FileLock, Timeout

from fnostab.errors import JournalError, os_errors_as
from fnostab.record.archive import opened, restore
from fnostab.record.lines import ARCHIVE_NAME, FILE_NAME, Event, Point, encode, journal_file, parse_lines, read_lines
from fnostab.record.numbers import number, whole
from fnostab.record.stderr_tail import HELD_ELSEWHERE

LOCK_NAME = "journal.lock"


class Sink(Protocol):
    """Receiver of a monitor's records, such as a `Journal`."""

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Store ``values`` of one step."""

    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        """Store one event."""


class Journal:
    """Writer of one journal; only one process at a time can hold it open.

    Opening an existing journal continues it. The steps of a metric only increase: where a resumed
    trial repeats a step, the first record is kept.

    Points are handed to the operating system with each call and survive a crash of the process;
    events are forced to disk and survive a crash of the machine.

    Args:
        directory: folder of the trial; created if it does not exist.

    Raises:
        JournalError: another process holds the journal, or it is damaged or can't be written.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.path = self.directory / FILE_NAME
        self._latest: dict[str, int] = {}
        self._time_ms = 0
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            for path in (self.directory / LOCK_NAME, self.path):
                if path.is_symlink():
                    raise JournalError(f"{path} is a link, through which nothing is written: put the file there")
            self._lock = FileLock(self.directory / LOCK_NAME)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise JournalError(f"{self.directory} is being written by another process{HELD_ELSEWHERE}") from None
        except OSError as error:
            raise JournalError(f"can't write {self.path}: {error.strerror or error}") from error
        try:
            self.take_back()
        except BaseException:
            self._lock.release()
            raise

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Append metrics of one step, except those that the journal already holds.

        Raises:
            JournalError: the step is not an integer from 0, a value is not a number, or the journal can't be written.
        """
        given = {name: number(name, value) for name, value in values.items()}
        finite = {name: value for name, value in given.items() if math.isfinite(value)}
        others = {name: repr(value) for name, value in given.items() if not math.isfinite(value)}
        self.add(Point(self._now_ms(), step, finite, others))

    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        """Append one event and force everything written so far to disk.

        Raises:
            JournalError: `encode` refuses the payload, or the journal can't be written.
        """
        self.add(Event(self._now_ms(), name, dict(payload)))

    def add(self, record: "Point | Event") -> None:
        """Append a record with its own time; of a point, only metrics that the journal lacks.

        Raises:
            JournalError: the step is not an integer from 0, `encode` refuses the record, or the journal can't be
                written. The journal then holds no part of it, unless it is an event that could not be forced to disk.
        """
        if isinstance(record, Event):
            self._append(record)
            with os_errors_as(JournalError, f"can't write {self.path}"):
                os.fsync(self._file.fileno())
            return
        step = whole("record", record.step)
        values, nonfinite = self._fresh(step, record.values), self._fresh(step, record.nonfinite)
        if values or nonfinite:
            self._append(replace(record, step=step, values=values, nonfinite=nonfinite))
            self._latest.update(dict.fromkeys([*values, *nonfinite], step))

    def lend(self) -> int:
        """Close the file but keep the lock, so that a program can write while this process waits.

        Returns:
            The lock's file descriptor. A program that inherits it keeps the trial locked if this process dies.

        Raises:
            JournalError: this process does not hold the lock.
        """
        self._file.close()
        descriptor: int | None = self._lock._context.lock_file_fd  # filelock has no public name for it
        if descriptor is None:
            raise JournalError(f"{self.directory} is not locked by this process")
        return descriptor

    def take_back(self) -> None:
        """Reopen the file after `lend`, once nobody else writes: read the new records, cut off a torn line.

        Raises:
            JournalError: a new record is damaged, or the journal can't be written.
        """
        with os_errors_as(JournalError, f"can't write {self.path}"):
            self._continue()
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - closed by close()

    def close(self) -> None:
        """Close the file and release the lock."""
        self._file.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _continue(self) -> None:
        if journal_file(self.directory).name == ARCHIVE_NAME:
            restore(self.directory)
        if not self.path.exists():
            return
        end = 0
        for record, offset in read_journal(self.path):
            end = offset
            self._time_ms = max(self._time_ms, record.time_ms)
            if isinstance(record, Point):
                self._latest.update(dict.fromkeys([*record.values, *record.nonfinite], record.step))
        if end < self.path.stat().st_size:
            os.truncate(self.path, end)

    def _fresh(self, step: int, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values of a step that the journal lacks."""
        return {name: value for name, value in values.items() if self._latest.get(name, -1) < step}

    def _now_ms(self) -> int:
        """Unix time in milliseconds, which never decreases within a journal even if the clock is set back."""
        self._time_ms = max(self._time_ms, time.time_ns() // 1_000_000)
        return self._time_ms

    def _append(self, record: "Point | Event") -> None:
        data = encode(record)
        if self._file.closed:
            raise JournalError(f"{self.path} is closed: record within the block of its `with`")
        with os_errors_as(JournalError, f"can't write {self.path}", "free some space"):
            before = os.fstat(self._file.fileno()).st_size  # tell() is wrong after a truncation
            if self._file.write(data) != len(data):
                self._file.truncate(before)  # leave no partial line before the next one
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_journal(
    path: str | Path, offset: int = 0, leave_out: Callable[[str], None] | None = None
) -> Iterator[tuple[Point | Event, int]]:
    """Yield each record with the offset after it, as `read_lines` does, also from an archived journal.

    Raises:
        JournalError: as in `read_lines`, or the archive is damaged.
    """
    directory = Path(path).parent
    if Path(path).name == FILE_NAME and journal_file(directory).name == ARCHIVE_NAME:
        with opened(directory) as file:
            yield from parse_lines(file, directory / ARCHIVE_NAME, offset, leave_out)
    else:
        yield from read_lines(path, offset, leave_out)
