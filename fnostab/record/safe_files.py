"""Safe file access: atomic writes, reads that can't block, and locks between processes."""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

POLL_S = 0.05


class HeldElsewhereError(Exception):
    """Error: another process holds a file."""


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Replace a file atomically: the block writes the new content to the path that it gets.

    A reader sees the old or the new content, even if this process dies; after an error in the block the old stays. A
    link at ``path`` is replaced, never followed. Only one process at a time may write a file.

    Raises:
        OSError: the file can't be replaced.
    """
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)  # left by a killed process
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes, *, to_disk: bool = False) -> None:
    """Write a file as `replaced` does, text as UTF-8; with ``to_disk`` it survives a crash of the machine.

    Raises:
        OSError: the file can't be written; the old content stays, unless only forcing it to disk failed.
    """
    with replaced(path) as partial, open(partial, "xb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        if to_disk:
            file.flush()
            os.fsync(file.fileno())
    if to_disk:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Force a folder's entries to disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_regular(path: str | Path) -> BufferedReader:
    """Open a file for reading.

    Raises:
        OSError: it can't be opened, or is a folder, FIFO, socket or device, which could block forever.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def changed_s(path: Path) -> float:
    """Unix time of a file's last change in seconds; 0 if there is no file."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


@contextmanager
def held(path: Path, timeout_s: float = 0) -> Iterator[None]:
    """Hold an advisory lock on a file. Nothing is written, and no file is created.

    Raises:
        HeldElsewhereError: another process holds it for longer than ``timeout_s``.
        OSError: it can't be opened or locked.
    """
    descriptor, can_write = _open(path)
    try:
        deadline = time.monotonic() + timeout_s
        while not _lock(descriptor, fcntl.LOCK_EX, required=can_write):  # NFS locks only writable files
            if time.monotonic() >= deadline:
                raise HeldElsewhereError(f"{path} is locked by another process")
            time.sleep(POLL_S)
        yield
    finally:
        _release(descriptor)


def is_held(path: Path) -> bool:
    """Whether a process holds a lock on a file; one that does not exist is not held.

    Raises:
        OSError: the lock can't be tested.
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
    """Descriptor of a file, and whether it is writable."""
    flags = os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, os.O_RDWR | flags), True
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
    return os.open(path, os.O_RDONLY | flags), False


def _lock(descriptor: int, how: int, *, required: bool = True) -> bool:
    """Lock a file without waiting; return False if another process holds it."""
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
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # forks may hold it open
    os.close(descriptor)
