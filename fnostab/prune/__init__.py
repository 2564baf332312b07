"""Shrink old trials: the store keeps thinned curves with every spike, an archive on disk keeps all points."""

from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from fnostab.errors import JournalError, os_errors_as
from fnostab.figures.decimation import decimate
from fnostab.record import names
from fnostab.record.archive import archive
from fnostab.record.attempt import last_attempt
from fnostab.record.folders import folders_with
from fnostab.record.journal import LOCK_NAME
from fnostab.record.lines import FILE_NAME
from fnostab.record.outcomes import TRAINING_OUTCOMES
from fnostab.record.safe_files import HeldElsewhereError, held

KEPT_AT_MOST = 3 * names.WINDOWS + 2  # smallest, largest and first gap of each window; first and last point
SMALLEST_BYTES = 10_000  # smaller journals save nothing: a file takes whole blocks of the disk


def shape_of(steps: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Select the steps that keep a history's shape: the extremes of each of 300 windows, the first and the last step.

    Args:
        steps: increasing, shape (n,).
        values: shape (n,); of values that are not finite, the first one of each window is kept.

    Returns:
        The selected steps, increasing, shape (m,).
    """
    kept, _ = decimate(steps, values, columns=names.WINDOWS)
    return np.union1d(kept, steps[[0, -1]]).astype(np.int64)


def old_journals(output: Path, before_ms: int, experiment: str | None = None) -> tuple[list[Path], list[str]]:
    """Find journals of trials whose training outcome is older than ``before_ms`` (Unix milliseconds).

    Journals below `SMALLEST_BYTES` are left out.

    Returns:
        Directories of the journals, and one message for each journal that can't be read.
    """
    found, refused = [], []
    for directory in folders_with(Path(output, experiment or ""), FILE_NAME):
        lines = directory / FILE_NAME
        try:
            with os_errors_as(JournalError, f"can't read {lines}"):
                end = last_attempt(lines).end if lines.stat().st_size >= SMALLEST_BYTES else None
        except JournalError as error:
            refused.append(str(error))
            continue
        if end is not None and end.payload.get("outcome") in TRAINING_OUTCOMES and end.time_ms < before_ms:
            found.append(directory)
    return found, refused


def archive_journal(directory: Path) -> int:
    """Replace a journal with an archive; return the archive's size in bytes.

    Raises:
        JournalError: the journal is in use or damaged, or the folder can't be written.
    """
    try:
        with FileLock(directory / LOCK_NAME, timeout=0), held(directory / FILE_NAME):  # writer's, uploader's lock
            return archive(directory)
    except (Timeout, HeldElsewhereError):
        raise JournalError(f"{directory} is in use by another process") from None
