"""Encode the records of a journal as lines and parse them again. Uses only the standard library.

One record per line: the CRC-32 of the rest, a space, and a JSON object. ``t`` is the Unix time in
milliseconds at which the record was made; every later copy keeps it, so sending a record twice
changes nothing. Points have ``s`` (step), ``v`` (finite values by name) and ``x`` (values that
were not finite); events have ``e`` (name) and ``p`` (payload).

A journal may come from elsewhere: values of other types than those below are refused.
"""

import json
import math
import operator
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from fnostab.errors import JournalError, os_errors_as
from fnostab.record import names
from fnostab.record.safe_files import open_regular

FILE_NAME = "journal.jsonl"
ARCHIVE_NAME = "journal.jsonl.xz"  # made by `fnostab prune` (`fnostab.record.archive`)
LONGEST_LINE_BYTES = 16_000_000
LARGEST_STEP = 2**63 - 1  # limit of databases
LATEST_MS = 253_402_300_799_999  # the end of the year 9999
DEEPEST = 30  # nesting of lists and groups
NONFINITE = ("nan", "inf", "-inf")
_TEXT, _WHOLE, _TEXTS = (str, type(None)), (int, type(None)), (list, type(None))
FIELDS: Mapping[str, Mapping[str, tuple[type, ...]]] = {  # of events that other readers depend on
    names.TAGS_EVENT: {names.OWNER: (str,), names.OUTCOME: (str,), names.FAILURE_STEP: (str, int), names.REASON: _TEXT},
    names.STARTED_EVENT: {"scheduled_steps": _WHOLE},
    names.ARTIFACT_EVENT: {"path": (str,), "artifact_path": _TEXT},
    names.DATASET_EVENT: {"name": (str,), "digest": (str,), "source": (str,), "context": (str,)},
    names.OUTCOME_EVENT: {
        "outcome": _TEXT,
        "failure_step": _WHOLE,
        "known_good_step": _WHOLE,
        "rules_held": _TEXTS,
        "not_judged": _TEXTS,
        "reason": _TEXT,
    },
}
NEEDED = {names.ARTIFACT_EVENT: {"path"}, names.DATASET_EVENT: {"name", "digest", "source"}}
_JSON = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=operator.index)


@dataclass(frozen=True)
class Point:
    """Metrics of one step; ``nonfinite`` maps a name to 'nan', 'inf' or '-inf', ``checksum`` is that of its line."""

    time_ms: int
    step: int
    values: Mapping[str, float]
    nonfinite: Mapping[str, str] = field(default_factory=dict)
    checksum: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True)
class Event:
    """One event of a trial; ``checksum`` is that of its line."""

    time_ms: int
    name: str
    payload: Mapping[str, Any]
    checksum: int = field(default=0, compare=False, repr=False)


def encode(record: Point | Event) -> bytes:
    """Encode a record as one line for `read_lines`; integers of other libraries become Python's.

    Raises:
        JournalError: the line could not be read again: it is too long or too deeply nested, or a value is not finite,
            not JSON, or of the wrong type for its name.
    """
    if isinstance(record, Event):
        what = f"event {str(record.name)[:80]!r}"
        fields: dict[str, Any] = {"t": record.time_ms, "e": record.name, "p": record.payload}
    else:
        what = f"step {record.step}"
        fields = {"t": record.time_ms, "s": record.step, "v": record.values}
        fields |= {"x": record.nonfinite} if record.nonfinite else {}
    try:
        text = _JSON.encode(fields).encode()
        line = b"%08x %s\n" % (zlib.crc32(text), text)
        if len(line) > LONGEST_LINE_BYTES:
            raise _NoRecordError(f"it has {len(line):,} bytes, and a record at most {LONGEST_LINE_BYTES:,}")
        if not (isinstance(record, Point) and _is_plain(record)):
            _parse(line)
    except (ValueError, TypeError, RecursionError) as error:
        raise JournalError(f"{what} can't be recorded: {error}") from None
    return line


def _is_plain(point: Point) -> bool:
    """Whether `_parse` accepts a point that JSON accepted; a fast check, since steps are many."""
    only_floats = {float}.issuperset(map(type, point.values.values())) and not point.nonfinite
    return only_floats and _is_whole(point.step, LARGEST_STEP) and _is_whole(point.time_ms, LATEST_MS)


def read_lines(
    path: str | Path, offset: int = 0, leave_out: Callable[[str], None] | None = None
) -> Iterator[tuple[Point | Event, int]]:
    """Yield each record from byte ``offset`` on, with the offset after it.

    Stops before an incomplete last line, whose writer is at work or died. ``leave_out`` is called with a message for
    each unreadable record; without it the first one is an error.

    Raises:
        JournalError: the file can't be read, or a record other than the last can't be.
    """
    with os_errors_as(JournalError, f"can't read {path}"), open_regular(path) as file:
        yield from parse_lines(file, path, offset, leave_out)


def parse_lines(
    file: BufferedIOBase, path: str | Path, offset: int, leave_out: Callable[[str], None] | None
) -> Iterator[tuple[Point | Event, int]]:
    """Yield each record of an open journal as `read_lines` does; errors name ``path``.

    Raises:
        JournalError: no line ends within `LONGEST_LINE_BYTES`, or a record other than the last can't be read.
    """
    file.seek(offset)
    line = file.readline(LONGEST_LINE_BYTES)
    while line.endswith(b"\n") or len(line) == LONGEST_LINE_BYTES:
        if not line.endswith(b"\n"):
            raise JournalError(
                f"{path} is damaged at byte {offset}: no line ends within {LONGEST_LINE_BYTES:,} bytes; "
                "restore it from a copy, or delete its folder"
            )
        following = file.readline(LONGEST_LINE_BYTES)
        try:
            record = _parse(line)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            if not following and not isinstance(error, _NoRecordError):
                return  # a torn line that ends in a stray newline
            why = f": {error}" if isinstance(error, _NoRecordError) else ""
            if leave_out is None:
                hint = "restore it from a copy, or delete its folder"
                raise JournalError(f"{path} is damaged at byte {offset}{why}; {hint}") from None
            leave_out(f"{Path(path).name} is damaged at byte {offset}{why}")
            record = None
        offset += len(line)
        if record is not None:
            yield record, offset
        line = following


def journal_file(directory: str | Path) -> Path:
    """Path of a trial's ``journal.jsonl``, which need not exist yet, or of its archive."""
    lines, archive = Path(directory, FILE_NAME), Path(directory, ARCHIVE_NAME)
    return archive if archive.exists() and not lines.exists() else lines


class _NoRecordError(ValueError):
    """A complete line that holds no record."""


def _parse(line: bytes) -> Point | Event:
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    if (crc := int(checksum, 16)) != zlib.crc32(text):
        raise ValueError("its checksum does not match")
    try:
        fields = json.loads(text.decode())
        if rb"\ud" in text.lower():
            fields = _without_surrogates(fields)
        time_ms = fields["t"]
        if not _is_whole(time_ms, LATEST_MS):
            raise _NoRecordError("its time is not a number")
        return _event(fields, time_ms, crc) if "e" in fields else _point(fields, time_ms, crc)
    except _NoRecordError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise _NoRecordError(f"not a record ({type(error).__name__})") from None


def _point(fields: Mapping[str, Any], time_ms: int, checksum: int) -> Point:
    step, values, others = fields["s"], fields["v"], fields.get("x", {})
    if not _is_whole(step, LARGEST_STEP):
        raise _NoRecordError("its step is not a whole number from 0")
    for name, value in values.items():
        if type(value) not in (int, float) or not math.isfinite(value):
            raise _NoRecordError(f"{name[:80]!r} is not a finite number")
    for name, value in others.items():
        if value not in NONFINITE:
            raise _NoRecordError(f"{name[:80]!r}: expected one of {', '.join(NONFINITE)}")
    return Point(time_ms, step, values, others, checksum)


def _event(fields: Mapping[str, Any], time_ms: int, checksum: int) -> Event:
    name, payload = fields["e"], fields["p"]
    if not isinstance(name, str) or not isinstance(payload, dict):
        raise _NoRecordError("not an event with a payload")
    if _is_deeper(payload, DEEPEST):
        raise _NoRecordError(f"its values lie more than {DEEPEST} deep")
    for key, types in FIELDS.get(name, {}).items():
        if key not in payload and key not in NEEDED.get(name, ()):
            continue
        value = payload.get(key)
        if type(value) not in types or (isinstance(value, int) and not _is_whole(value, LARGEST_STEP)):
            raise _NoRecordError(f"{key} of {name} is not of its type")
        if isinstance(value, list) and not all(isinstance(each, str) for each in value):
            raise _NoRecordError(f"{key} of {name} is not a list of texts")
    outcome = payload.get("outcome" if name == names.OUTCOME_EVENT else names.OUTCOME)
    if name in (names.OUTCOME_EVENT, names.TAGS_EVENT) and outcome not in (None, *names.OUTCOMES):
        raise _NoRecordError(f"{str(outcome)[:80]!r} is not an outcome; accepted: {', '.join(names.OUTCOMES)}")
    step = payload.get(names.FAILURE_STEP) if name == names.TAGS_EVENT else None
    if isinstance(step, str) and not (step.isascii() and step.isdecimal() and len(step) < len(str(LARGEST_STEP))):
        raise _NoRecordError(f"{names.FAILURE_STEP} is not a step")
    return Event(time_ms, name, payload, checksum)


def _is_whole(value: Any, largest: int) -> bool:
    return type(value) is int and 0 <= value <= largest


def _is_deeper(value: Any, deepest: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return deepest < 0 or any(_is_deeper(each, deepest - 1) for each in inner if isinstance(each, dict | list))


def _without_surrogates(value: Any) -> Any:
    """Copy of a value with surrogates, which UTF-8 can't encode, replaced."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_surrogates(each) for each in value]
    if isinstance(value, dict):
        return {_without_surrogates(name): _without_surrogates(each) for name, each in value.items()}
    return value
