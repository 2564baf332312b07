"""Archives of finished journals as Parquet: much smaller, with every record unchanged.

One row a record, in order: ``record.end`` is the offset behind it in the journal, from which a reader
continues; ``record.time_ms``, ``record.step``, ``record.event``, ``record.payload`` and
``record.nonfinite`` (both JSON) hold what `fnostab.record.journal` does, and each metric has a column of its own name.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fnostab.errors import JournalError
from fnostab.record.journal import ARCHIVE_NAME, FILE_NAME, Event, Point, encode, journal_file, read_journal

__all__ = ["archive", "journal_bytes", "read_archive", "restore"]

RECORD = "record."
END, TIME, STEP = f"{RECORD}end", f"{RECORD}time_ms", f"{RECORD}step"
EVENT, PAYLOAD, NONFINITE = f"{RECORD}event", f"{RECORD}payload", f"{RECORD}nonfinite"
BYTES = b"fnostab.journal_bytes"  # in the file's metadata


def archive(directory: Path) -> int:
    """Replace a trial's journal by an archive, once that is known to hold the same records; return its size in bytes.

    The caller must hold the locks of journal and upload.

    Raises:
        JournalError: the journal is damaged or can't be rebuilt exactly, or the folder can't be written.
    """
    from pyarrow import parquet

    lines, target = directory / FILE_NAME, directory / ARCHIVE_NAME
    records = list(read_journal(lines))
    partial = target.with_suffix(".partial")
    try:
        if not records or records[-1][1] != lines.stat().st_size:
            raise JournalError(f"{lines} does not end with a whole record: `fnostab reconcile` closes it")
        parquet.write_table(_table(records), partial, compression="zstd", write_page_checksum=True)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        if list(read_archive(partial)) != records or not _has_same_lines(records):
            raise JournalError(f"{lines} can't be rebuilt exactly from an archive: it is left as it is")
        partial.replace(target)
        lines.unlink()
    except OSError as error:
        raise JournalError(f"can't archive {lines}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return target.stat().st_size


def restore(directory: Path) -> None:
    """Turn an archive back into a journal, which can be written again.

    Raises:
        JournalError: the archive is damaged, or the folder can't be written.
    """
    lines, source = directory / FILE_NAME, directory / ARCHIVE_NAME
    partial = lines.with_suffix(".restored")
    try:
        with open(partial, "wb") as file:
            for record, _ in read_archive(source):
                file.write(encode(record))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(lines)
        source.unlink()
    except OSError as error:
        raise JournalError(f"can't restore {lines}: {error.strerror or error}") from error


def journal_bytes(directory: Path) -> int:
    """Size of a trial's journal in bytes; of an archived journal, its size before it was archived.

    Raises:
        JournalError: there is no journal, or the archive is damaged.
    """
    path = journal_file(directory)
    try:
        return int(_open(path).schema_arrow.metadata[BYTES]) if path.name == ARCHIVE_NAME else path.stat().st_size
    except (KeyError, TypeError) as error:
        raise JournalError(f"{path} is no archive of a journal: restore it from a copy") from error
    except OSError as error:
        raise JournalError(f"can't read {path}: {error.strerror or error}") from error


def read_archive(path: Path, offset: int = 0) -> Iterator[tuple[Point | Event, int]]:
    """Yield each record from the journal's byte ``offset`` on, as `fnostab.record.journal.read_journal` does.

    Raises:
        JournalError: the archive is damaged, or can't be read.
    """
    file = _open(path)
    metrics = [name for name in file.schema_arrow.names if not name.startswith(RECORD)]
    try:
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                if row[END] > offset:
                    yield _record(row, metrics), row[END]
    except (OSError, ValueError, KeyError) as error:
        raise JournalError(f"{path} is damaged: restore it from a copy") from error


def _open(path: Path) -> Any:
    from pyarrow import ArrowException, parquet

    try:
        return parquet.ParquetFile(path, page_checksum_verification=True)
    except (OSError, ArrowException) as error:
        raise JournalError(f"{path} can't be read as an archive ({error}): restore it from a copy") from error


def _record(row: dict[str, Any], metrics: list[str]) -> Point | Event:
    if row[EVENT] is not None:
        return Event(row[TIME], row[EVENT], json.loads(row[PAYLOAD]))
    values = {name: row[name] for name in metrics if row[name] is not None}
    return Point(row[TIME], row[STEP], values, json.loads(row[NONFINITE]) if row[NONFINITE] else {})


def _table(records: list[tuple[Point | Event, int]]) -> Any:
    import pyarrow

    points = [record if isinstance(record, Point) else None for record, _ in records]
    events = [record if isinstance(record, Event) else None for record, _ in records]
    metrics = dict.fromkeys(name for point in points if point for name in point.values)
    columns = {
        END: pyarrow.array([end for _, end in records], pyarrow.int64()),
        TIME: pyarrow.array([record.time_ms for record, _ in records], pyarrow.int64()),
        STEP: pyarrow.array([point.step if point else None for point in points], pyarrow.int64()),
        EVENT: pyarrow.array([event.name if event else None for event in events], pyarrow.string()),
        PAYLOAD: pyarrow.array([json.dumps(event.payload) if event else None for event in events], pyarrow.string()),
        NONFINITE: pyarrow.array(
            [json.dumps(point.nonfinite) if point and point.nonfinite else None for point in points], pyarrow.string()
        ),
    }
    for name in metrics:
        columns[name] = pyarrow.array(
            [point.values.get(name) if point else None for point in points], pyarrow.float64()
        )
    return pyarrow.table(columns).replace_schema_metadata({BYTES: str(records[-1][1])})


def _has_same_lines(records: list[tuple[Point | Event, int]]) -> bool:
    """Whether the records, written again, give lines of the same length, so that offsets stay true."""
    end = 0
    for record, behind in records:
        end += len(encode(record))
        if end != behind:
            return False
    return True
