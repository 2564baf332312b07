"""Lines of a journal: write a record as a line, and read it back. The standard library only.

One line a record: the CRC-32 of the rest, a space, and a JSON object. ``t`` is the Unix time in
milliseconds at which the record was made, and is what every later copy shows, so that sending it
twice changes nothing. Points carry ``s`` (step) and ``v`` (finite values by name), and ``x`` for
values that were not finite; events carry ``e`` (name) and ``p`` (payload).
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fnostab.errors import JournalError

__all__ = ["ARCHIVE_NAME", "FILE_NAME", "Event", "Point", "encode", "journal_file", "parse_lines", "read_lines"]

FILE_NAME = "journal.jsonl"
ARCHIVE_NAME = "journal.jsonl.xz"  # what `fnostab prune` makes of an old one (`fnostab.record.archive`)


@dataclass(frozen=True)
class Point:
    """Metrics of one step. ``nonfinite`` maps a name to 'nan', 'inf' or '-inf'."""

    time_ms: int
    step: int
    values: Mapping[str, float]
    nonfinite: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """One event of a trial."""

    time_ms: int
    name: str
    payload: Mapping[str, Any]


def encode(record: Point | Event) -> bytes:
    """Write a record as one line."""
    if isinstance(record, Event):
        line: dict[str, Any] = {"t": record.time_ms, "e": record.name, "p": record.payload}
    else:
        line = {"t": record.time_ms, "s": record.step, "v": record.values}
        line |= {"x": record.nonfinite} if record.nonfinite else {}
    text = json.dumps(line, separators=(",", ":"), allow_nan=False).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def read_lines(path: str | Path, offset: int = 0) -> Iterator[tuple[Point | Event, int]]:
    """Yield each record from byte ``offset`` on, with the offset behind it.

    It ends before an incomplete last line, whose writer is at work or died.

    Raises:
        JournalError: the file can't be read, or a line that is not the last is damaged.
    """
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read()
    except OSError as error:
        raise JournalError(f"can't read {path}: {error.strerror or error}") from error
    yield from parse_lines(data, path, offset)


def parse_lines(data: bytes, path: str | Path, offset: int = 0) -> Iterator[tuple[Point | Event, int]]:
    """Yield each record of what stands in a journal from byte ``offset`` on, as `read_lines` does.

    Raises:
        JournalError: a line that is not the last is damaged; the message names ``path``.
    """
    lines = data.split(b"\n")
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
    checksum, _, text = line.partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(text):
            return None
        fields = json.loads(text)
        if "e" in fields:
            return Event(fields["t"], fields["e"], fields["p"])
        return Point(fields["t"], fields["s"], fields["v"], fields.get("x", {}))
    except (ValueError, KeyError, TypeError):
        return None


def journal_file(directory: str | Path) -> Path:
    """Path of a trial's records: ``journal.jsonl``, which need not exist yet, or its archive."""
    lines, archive = Path(directory, FILE_NAME), Path(directory, ARCHIVE_NAME)
    return archive if archive.exists() and not lines.exists() else lines
