"""Archives of finished journals, compressed with LZMA; ``xz -d journal.jsonl.xz`` restores the same file."""

import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

from fnostab.errors import JournalError, os_errors_as
from fnostab.record.lines import ARCHIVE_NAME, FILE_NAME, journal_file, read_lines
from fnostab.record.safe_files import open_regular, write_whole


def archive(directory: Path) -> int:
    """Replace a trial's journal with an archive after verifying its records; return the archive's size in bytes.

    The caller must hold the locks of journal and upload.

    Raises:
        JournalError: the journal is damaged or does not end with a whole record, or the folder can't be written.
    """
    lines, target = directory / FILE_NAME, directory / ARCHIVE_NAME
    end = max((end for _, end in read_lines(lines)), default=0)
    with os_errors_as(JournalError, f"can't archive {lines}"):
        data = lines.read_bytes()
        if not data or end != len(data):
            raise JournalError(f"{lines} does not end with a whole record: `fnostab reconcile` closes it")
        write_whole(target, lzma.compress(data), to_disk=True)
        if lzma.decompress(target.read_bytes()) != data:
            target.unlink()
            raise JournalError(f"{lines} does not read back the same from {target}: it was left unchanged")
        lines.unlink()
        return target.stat().st_size


def restore(directory: Path) -> None:
    """Turn an archive back into a journal, which can be written again.

    Raises:
        JournalError: the archive is damaged, or the folder can't be written.
    """
    lines, source = directory / FILE_NAME, directory / ARCHIVE_NAME
    with opened(directory) as file:
        data = file.read()
    with os_errors_as(JournalError, f"can't restore {lines}"):
        write_whole(lines, data, to_disk=True)
        source.unlink()


@contextmanager
def opened(directory: Path) -> Iterator[BufferedIOBase]:
    """Open a trial's journal for reading; an archive reads like the journal it was made from.

    Raises:
        JournalError: there is none, or it can't be read.
    """
    path = journal_file(directory)
    try:
        with open_regular(path) as file:
            if path.name != ARCHIVE_NAME:
                yield file
                return
            with lzma.open(file) as lines:
                yield lines
    except (OSError, EOFError, lzma.LZMAError) as error:
        why = f" as an archive ({error}): restore it from a copy" if path.name == ARCHIVE_NAME else f": {error}"
        raise JournalError(f"{path} can't be read{why}") from error
