"""Compress old journals."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from fnostab.errors import JournalError
from fnostab.record.archive import archive
from fnostab.record.attempt import last_attempt
from fnostab.record.folders import folders_with
from fnostab.record.journal import LOCK_NAME
from fnostab.record.lines import FILE_NAME
from fnostab.record.outcomes import TRAINING_OUTCOMES
from fnostab.record.safe_files import HeldElsewhereError, held

SMALLEST_BYTES = 10_000  # smaller ones save nothing: a file takes whole blocks of the disk


@dataclass(frozen=True)
class Archived:
    """Result for one journal: its sizes in bytes before and after, or the reason why it was not archived."""

    directory: Path
    before: int
    after: int = 0
    refused: str | None = None


def old_journals(output: Path, before_ms: int, experiment: str | None = None) -> tuple[list[Path], list[str]]:
    """Find journals of trials whose training outcome is older than ``before_ms`` (Unix milliseconds).

    Journals below `SMALLEST_BYTES` are left out.

    Returns:
        Directories of the journals, and one message for each journal that can't be read.
    """
    found, refused = [], []
    for lines in (folder / FILE_NAME for folder in folders_with(Path(output, experiment or ""), FILE_NAME)):
        try:
            if lines.stat().st_size < SMALLEST_BYTES:
                continue
            end = last_attempt(lines).end
        except OSError as error:
            refused.append(f"can't read {lines}: {error.strerror or error}")
            continue
        except JournalError as error:
            refused.append(str(error))
            continue
        if end is not None and end.payload.get("outcome") in TRAINING_OUTCOMES and end.time_ms < before_ms:
            found.append(lines.parent)
    return found, refused


def archive_journals(directories: Sequence[Path]) -> Iterator[Archived]:
    """Replace each journal with an archive, unless it is in use or damaged; yield the result for each."""
    for directory in directories:
        before = (directory / FILE_NAME).stat().st_size
        try:
            with FileLock(directory / LOCK_NAME, timeout=0), held(directory / FILE_NAME):  # writer's, uploader's lock
                yield Archived(directory, before, archive(directory))
        except (Timeout, HeldElsewhereError):
            yield Archived(directory, before, refused=f"{directory} is in use by another process")
        except JournalError as error:
            yield Archived(directory, before, refused=str(error))
