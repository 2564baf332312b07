"""Archives of finished journals, compressed by LZMA: ``xz -d journal.jsonl.xz`` gives the same file again."""

import lzma
from pathlib import Path

from fnostab.errors import JournalError
from fnostab.record.files import write_whole
from fnostab.record.lines import ARCHIVE_NAME, FILE_NAME, journal_file, read_lines

__all__ = ["archive", "archived_bytes", "journal_bytes", "restore"]


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
    data = archived_bytes(source)
    try:
        write_whole(lines, data, to_disk=True)
        source.unlink()
    except OSError as error:
        raise JournalError(f"can't restore {lines}: {error.strerror or error}") from error


def journal_bytes(directory: Path) -> int:
    """Size of a trial's journal in bytes; of an archived journal, its size before it was archived.

    Raises:
        JournalError: there is no journal, or the archive is damaged.
    """
    path = journal_file(directory)
    if path.name == ARCHIVE_NAME:
        return len(archived_bytes(path))
    try:
        return path.stat().st_size
    except OSError as error:
        raise JournalError(f"can't read {path}: {error.strerror or error}") from error


def archived_bytes(path: Path) -> bytes:
    """Content of the journal that an archive holds.

    Raises:
        JournalError: the archive is damaged, or can't be read.
    """
    try:
        return lzma.decompress(path.read_bytes())
    except (OSError, lzma.LZMAError) as error:
        raise JournalError(f"{path} can't be read as an archive ({error}): restore it from a copy") from error
