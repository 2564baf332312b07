"""Archives of finished journals, compressed by LZMA: ``xz -d journal.jsonl.xz`` gives the same file again."""

import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

from fnostab.errors import JournalError
from fnostab.record.files import open_regular, write_whole
from fnostab.record.lines import ARCHIVE_NAME, FILE_NAME, journal_file, read_lines

__all__ = ["archive", "opened", "restore"]


def archive(directory: Path) -> int:
    """Replace a trial's journal by an archive, once that is known to hold the same records; return its size in bytes.

    The caller must hold the locks of journal and upload.

    Raises:
        JournalError: the journal is damaged or does not end with a whole record, or the folder can't be written.
    """
    lines, target = directory / FILE_NAME, directory / ARCHIVE_NAME
    end = max((end for _, end in read_lines(lines)), default=0)
    try:
        data = lines.read_bytes()
        if not data or end != len(data):
            raise JournalError(f"{lines} does not end with a whole record: `fnostab reconcile` closes it")
        write_whole(target, lzma.compress(data), to_disk=True)
        if lzma.decompress(target.read_bytes()) != data:
            target.unlink()
            raise JournalError(f"{lines} is not the same in {target}: it is left as it is")
        lines.unlink()
        return target.stat().st_size
    except OSError as error:
        raise JournalError(f"can't archive {lines}: {error.strerror or error}") from error


def restore(directory: Path) -> None:
    """Turn an archive back into a journal, which can be written again.

    Raises:
        JournalError: the archive is damaged, or the folder can't be written.
    """
    lines, source = directory / FILE_NAME, directory / ARCHIVE_NAME
    with opened(directory) as file:
        data = file.read()
    try:
        write_whole(lines, data, to_disk=True)
        source.unlink()
    except OSError as error:
        raise JournalError(f"can't restore {lines}: {error.strerror or error}") from error


@contextmanager
def opened(directory: Path) -> Iterator[BufferedIOBase]:
    """A trial's journal, opened for reading; an archive reads as the journal that it was made of.

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
