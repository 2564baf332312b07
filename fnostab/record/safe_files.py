"""Files of a trial: written whole or not at all, read only if that can't block, held against other processes."""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

__all__ = ["HeldElsewhereError", "changed_s", "held", "is_held", "open_regular", "write_whole"]

POLL_S = 0.05


class HeldElsewhereError(Exception):
    """Another process holds a file."""


def write_whole(path: Path, content: str | bytes, *, to_disk: bool = False) -> None:
    """Write a file, text as UTF-8, atomically: a reader sees the old content or the new, even if this process dies.

    A link in its place is replaced, never followed. One process at a time may write one file. With ``to_disk`` the disk
    is waited for, so that the content survives the death of the machine.

    Raises:
        OSError: the file can't be written; the old content stays, unless only the wait for the disk failed.
    """
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)  # of a process that was killed
    try:
        with open(partial, "xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if to_disk:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
        if to_disk:
            _sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Wait until the disk knows a folder's files by their names."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_regular(path: str | Path) -> BufferedReader:
    """Open a file for reading.

    Raises:
        OSError: it can't be opened, or is a folder, FIFO, socket or device, which could block for ever.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def changed_s(path: Path) -> float:
    """Time of a file's last change, Unix seconds; 0 if there is no file."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


@contextmanager
def held(path: Path, timeout_s: float = 0) -> Iterator[None]:
    """Keep other processes that ask for it from holding a file too. Nothing is written, and no file is made.

    Raises:
        HeldElsewhereError: another process holds it for longer than ``timeout_s``.
        OSError: it can't be opened or locked.
    """
    descriptor, can_write = _open(path)
    try:
        deadline = time.monotonic() + timeout_s
        while not _lock(descriptor, fcntl.LOCK_EX, required=can_write):  # NFS locks only what can be written
            if time.monotonic() >= deadline:
                raise HeldElsewhereError(f"{path} is locked by another process")
            time.sleep(POLL_S)
        yield
    finally:
        _release(descriptor)


def is_held(path: Path) -> bool:
    """Whether a process holds a lock on a file; one that does not exist is not held.

    Raises:
        OSError: the lock can't be tried.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _lock(descriptor, fcntl.LOCK_SH)
    finally:
        _release(descriptor)


def _open(path: Path) -> tuple[int, bool]:
    """Descriptor of a file, and whether it can be written."""
    flags = os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, os.O_RDWR | flags), True
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
    return os.open(path, os.O_RDONLY | flags), False


def _lock(descriptor: int, how: int, *, required: bool = True) -> bool:
    """Lock a file at once; answer whether nobody else holds it."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        if required:
            raise
    return True


def _release(descriptor: int) -> None:
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # forks may have it open
    os.close(descriptor)
