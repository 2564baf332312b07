"""Archives of finished journals, compressed with LZMA; ``xz -d journal.jsonl.xz`` restores the same file."""

import lzma
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

from fnostab.errors import JournalError, os_errors_as
from fnostab.record.lines import ARCHIVE_NAME, FILE_NAME, journal_file, read_lines
from fnostab.record.safe_files import open_regular, write_whole

__all__ = ["archive", "journal_size", "opened", "restore"]

FOOTER_BYTES = 12  # of the xz format, https://tukaani.org/xz/xz-file-format.txt, 2.1.2 and 4


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
        write_whole(target, lzma.compress(data))
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
        write_whole(lines, data)
        source.unlink()


def journal_size(directory: Path) -> int:
    """Size of a trial's journal in bytes; for an archive, the unpacked size, read from its index without unpacking.

    Raises:
        JournalError: there is none, or it can't be read.
    """
    path = journal_file(directory)
    try:
        with open_regular(path) as file:
            end = file.seek(0, os.SEEK_END)
            if path.name != ARCHIVE_NAME:
                return end
            file.seek(end - FOOTER_BYTES)
            index_bytes = 4 * (int.from_bytes(file.read(FOOTER_BYTES)[4:8], "little") + 1)
            file.seek(end - FOOTER_BYTES - index_bytes)
            index = iter(file.read(index_bytes)[1:])
        numbers = [_number(index) for _ in range(2 * _number(index))]  #  packed and unpacked size of each block
        return sum(numbers[1::2])
    except (OSError, ValueError) as error:
        raise JournalError(f"{path} can't be read ({error}): restore it from a copy") from error


def _number(index: Iterator[int]) -> int:
    """Next number of an archive's index: seven bits per byte, lowest first; the last byte is below 128."""
    number = shift = 0
    for byte in index:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number
    raise ValueError("its index is damaged")


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
