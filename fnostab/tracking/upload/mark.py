"""Mark in a run that says how much of its journal was sent.

The mark is a tag of the run, written with the last call that sends the records it covers. So a store that was restored
from a backup, or that replaces another one, says by itself which records it has.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fnostab.record.journal import read_journal
from fnostab.record.lines import Event, Point

_TEXT = re.compile(r"(\d{1,18}) ([0-9a-f]{8}) (\d{1,18})")


@dataclass(frozen=True)
class Mark:
    """Position in a journal, at the end of a record.

    Attributes:
        offset: number of bytes before it.
        checksum: checksum of the record's line, which tells this journal from another one.
        time_ms: time of the record, Unix milliseconds.
    """

    offset: int
    checksum: int
    time_ms: int

    @classmethod
    def behind(cls, record: Point | Event, offset: int) -> Self:
        """Position after a record that ends ``offset`` bytes into its journal."""
        return cls(offset, record.checksum, record.time_ms)

    @classmethod
    def read(cls, text: str | None) -> "Mark":
        """Parse the text of a mark; a missing or invalid one counts as `NOTHING`."""
        found = _TEXT.fullmatch(text or "")
        return cls(int(found[1]), int(found[2], 16), int(found[3])) if found else NOTHING

    def __str__(self) -> str:
        return f"{self.offset} {self.checksum:08x} {self.time_ms}"


NOTHING = Mark(0, 0, 0)


def place_of(
    mark: Mark, journal: Path, note: Callable[[Point | Event], None], leave_out: Callable[[str], None]
) -> Mark | None:
    """Find the position up to which a run with ``mark`` has a journal.

    ``note`` is called with each record up to the mark, ``leave_out`` with a message for each unreadable one.

    Returns:
        The position; `NOTHING` if the mark is of another journal; None if the journal is an older copy of the run's.

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
