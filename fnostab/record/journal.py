"""The append-only record of one trial, on local disk before it is anywhere else.

One line a record: the CRC-32 of the rest, a space, and a JSON object. ``t`` is the Unix time in
milliseconds at which the record was made, and is what every later copy shows, so that sending it
twice changes nothing. Points carry ``s`` (step) and ``v`` (finite values by name), and ``x`` for
values that were not finite; events carry ``e`` (name) and ``p`` (payload).

An old journal may have been archived: it is read as before, and a writer turns it back into lines.

A process that dies while it writes leaves a torn last line: it is recognised, ignored by readers
and cut off by the next writer. A damaged line anywhere else is an error, never skipped in silence.
"""

import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from filelock import FileLock, Timeout

from fnostab.errors import JournalError
from fnostab.record.lines import append, event_line, parse_line, point_line

__all__ = ["ARCHIVE_NAME", "FILE_NAME", "Event", "Journal", "Point", "Sink", "encode", "journal_file", "read_journal"]

FILE_NAME = "journal.jsonl"
ARCHIVE_NAME = "journal.parquet"  # what `fnostab prune` makes of an old one (`fnostab.record.archive`)


class Sink(Protocol):
    """Where a monitor puts what it sees."""

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Keep ``values`` of one step."""

    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        """Keep one thing that happened."""


@dataclass(frozen=True)
class Point:
    """Metrics of one step. ``nonfinite`` maps a name to 'nan', 'inf' or '-inf'."""

    time_ms: int
    step: int
    values: Mapping[str, float]
    nonfinite: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """One thing that happened to a trial."""

    time_ms: int
    name: str
    payload: Mapping[str, Any]


class Journal:
    """Writes one journal; only one process at a time can hold it open.

    Opening one that exists continues it. A metric's steps only ever grow: a resumed trial that
    comes by a step that it recorded before keeps the first record.

    Points go to the operating system with each call, so that they survive the death of the process;
    events are forced to the disk, so that they survive the death of the machine.

    Args:
        directory: of the trial; made if it does not exist.

    Raises:
        JournalError: another process holds it, or it is damaged or can't be written.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.path = self.directory / FILE_NAME
        self._latest: dict[str, int] = {}
        self._time_ms = 0
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.directory / "journal.lock")
            self._lock.acquire(timeout=0)
        except Timeout:
            raise JournalError(f"{self.directory} is being written by another process: wait for it to end") from None
        except OSError as error:
            raise JournalError(f"can't write {self.path}: {error.strerror or error}") from error
        try:
            self._continue()
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - closed by close()
        except BaseException as error:
            self._lock.release()
            if isinstance(error, OSError):
                raise JournalError(f"can't write {self.path}: {error.strerror or error}") from error
            raise

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Append metrics of one step, but for those that the journal already holds."""
        fresh = {name: value for name, value in values.items() if self._latest.get(name, -1) < step}
        if not fresh:
            return
        finite = {name: float(value) for name, value in fresh.items() if math.isfinite(value)}
        others = {name: repr(float(value)) for name, value in fresh.items() if not math.isfinite(value)}
        self._append(Point(self._now_ms(), step, finite, others))
        self._latest.update(dict.fromkeys(fresh, step))

    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        """Append one event and force everything so far to the disk."""
        self._append(Event(self._now_ms(), name, dict(payload)))
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise JournalError(f"can't write {self.path}: {error.strerror or error}") from error

    def hand_over(self) -> int:
        """Close the file and keep the lock, for a program that records by itself; the lock's descriptor.

        Who inherits the descriptor holds the lock too, until all have closed it.
        """
        self._file.close()
        descriptor: int | None = self._lock._context.lock_file_fd  # public nowhere
        assert descriptor is not None
        return descriptor

    def take_back(self) -> None:
        """Go on with a journal that was handed over, once nobody else writes it.

        Raises:
            JournalError: it is damaged or can't be written.
        """
        self._continue()
        try:
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise JournalError(f"can't write {self.path}: {error.strerror or error}") from error

    def close(self) -> None:
        """Close the file and let other processes open it."""
        self._file.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _continue(self) -> None:
        if journal_file(self.directory).name == ARCHIVE_NAME:
            from fnostab.record.archive import restore

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

    def _now_ms(self) -> int:
        """Unix time, which never decreases within a journal: clocks are set back."""
        self._time_ms = max(self._time_ms, time.time_ns() // 1_000_000)
        return self._time_ms

    def _append(self, record: "Point | Event") -> None:
        data = encode(record)
        try:
            append(self._file.fileno(), data)
        except OSError as error:
            raise JournalError(f"can't write {self.path}: {error.strerror or error}; free some space") from error


def journal_file(directory: str | Path) -> Path:
    """Where a trial's records are: ``journal.jsonl``, which need not exist yet, or its archive."""
    lines, archive = Path(directory, FILE_NAME), Path(directory, ARCHIVE_NAME)
    return archive if archive.exists() and not lines.exists() else lines


def encode(record: Point | Event) -> bytes:
    """A record as its line."""
    if isinstance(record, Event):
        return event_line(record.time_ms, record.name, record.payload)
    return point_line(
        record.time_ms, record.step, {**record.values, **{name: float(text) for name, text in record.nonfinite.items()}}
    )


def read_journal(path: str | Path, offset: int = 0) -> Iterator[tuple[Point | Event, int]]:
    """Yield each record from byte ``offset`` on, with the offset behind it; an archived journal has those that it had.

    Ends before a last line that is not complete: its writer is at work, or died.

    Raises:
        JournalError: the file can't be read, or a line that is not the last is damaged.
    """
    if (archive := journal_file(Path(path).parent)).name == ARCHIVE_NAME and Path(path).name == FILE_NAME:
        from fnostab.record.archive import read_archive  # here, since what it needs takes long to import

        yield from read_archive(archive, offset)
        return
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            lines = file.read().split(b"\n")
    except OSError as error:
        raise JournalError(f"can't read {path}: {error.strerror or error}") from error
    complete, torn = lines[:-1], lines[-1]
    for index, line in enumerate(complete):
        record = _parse(line)
        if record is None:
            if index == len(complete) - 1 and not torn:
                return  # a torn line that ends in a stray newline
            raise JournalError(f"{path} is damaged at byte {offset}: restore it from a copy, or delete its folder")
        offset += len(line) + 1
        yield record, offset


def _parse(line: bytes) -> Point | Event | None:
    fields = parse_line(line)
    try:
        if fields is None:
            return None
        if "e" in fields:
            return Event(fields["t"], fields["e"], fields["p"])
        return Point(fields["t"], fields["s"], fields["v"], fields.get("x", {}))
    except KeyError:
        return None
