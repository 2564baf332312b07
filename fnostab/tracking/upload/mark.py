"""Mark in a run that says how much of its journal it has.

It is in the run itself, written with the last call that brings what it speaks of: a store that was put back from
a backup, or another one that takes its place, says by itself how far it came.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fnostab.record.journal import Event, Point, read_journal

__all__ = ["NOTHING", "Mark", "place_of"]

_TEXT = re.compile(r"(\d{1,18}) ([0-9a-f]{8}) (\d{1,18})")


@dataclass(frozen=True)
class Mark:
    """A place in a journal.

    Attributes:
        offset: bytes before it.
        checksum: of the line that ends there, which tells this journal from another one.
        time_ms: of that record, Unix milliseconds.
    """

    offset: int
    checksum: int
    time_ms: int

    @classmethod
    def behind(cls, record: Point | Event, offset: int) -> Self:
        """The place behind a record."""
        return cls(offset, record.checksum, record.time_ms)

    @classmethod
    def read(cls, text: str | None) -> "Mark":
        """Read a mark; an invalid or altered one counts as the mark of a run that has nothing."""
        found = _TEXT.fullmatch(text or "")
        return cls(int(found[1]), int(found[2], 16), int(found[3])) if found else NOTHING

    def __str__(self) -> str:
        return f"{self.offset} {self.checksum:08x} {self.time_ms}"


NOTHING = Mark(0, 0, 0)


def place_of(
    mark: Mark, journal: Path, note: Callable[[Point | Event], None], leave_out: Callable[[str], None]
) -> Mark | None:
    """Place up to which a run with a mark has a journal: nothing if the mark is of another journal or store.

    ``note`` takes each record before the place, ``leave_out`` a line on each there that can't be read.

    Returns:
        The place; None if the run's own journal is newer than this one, a copy of it.

    Raises:
        JournalError: the journal can't be read.
    """
    last = NOTHING
    for record, end in read_journal(journal, leave_out=leave_out) if mark.offset else ():
        last = Mark.behind(record, end)
        note(record)
        if last.offset >= mark.offset:
            break
    if last == mark:
        return mark
    return None if last.offset < mark.offset and last.time_ms <= mark.time_ms else NOTHING
