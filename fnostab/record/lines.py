"""One line of a journal, in the standard library alone: the CRC-32 of the rest, a space, and a JSON object."""

import errno
import json
import math
import os
import zlib
from collections.abc import Mapping
from typing import Any

__all__ = ["append", "event_line", "parse_line", "point_line"]


def event_line(time_ms: int, name: str, payload: Mapping[str, Any]) -> bytes:
    """An event as its line."""
    return _line({"t": time_ms, "e": name, "p": payload})


def point_line(time_ms: int, step: int, values: Mapping[str, float]) -> bytes:
    """Metrics of one step as their line; values that are not finite stand apart, as JSON has no word for them."""
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    line: dict[str, Any] = {"t": time_ms, "s": step, "v": finite}
    if len(finite) < len(values):
        line["x"] = {name: repr(value) for name, value in values.items() if name not in finite}
    return _line(line)


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Fields of a line without its end; None if it is torn or damaged."""
    checksum, _, text = line.partition(b" ")
    try:
        fields = json.loads(text) if int(checksum, 16) == zlib.crc32(text) else None
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def append(descriptor: int, line: bytes) -> None:
    """Write a whole line or nothing of it.

    Raises:
        OSError: it can't be written: a full disk, say.
    """
    before = os.fstat(descriptor).st_size  # where it ends now: others may have cut it off
    written = os.write(descriptor, line)
    if written != len(line):
        os.ftruncate(descriptor, before)  # half a line must not stand before the next one
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _line(fields: Mapping[str, Any]) -> bytes:
    text = json.dumps(fields, separators=(",", ":"), allow_nan=False).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)
