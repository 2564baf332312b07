"""Files that a user gives, of a probe or an object: read once, checked by SHA-256, never unpickled."""

import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fnostab.errors import DataError
from fnostab.record.settings import file_sha256

__all__ = ["input_sha256", "insist_on_sha256", "read_npz", "unreadable"]

What = Literal["probe", "object"]


def input_sha256(path: str | Path, what: What) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        DataError: the file can't be read.
    """
    try:
        return file_sha256(path)
    except (OSError, ValueError) as error:  # a path with a NUL, say
        raise unreadable(path, what, error) from error


def insist_on_sha256(path: str | Path, what: What, sha256: str | None) -> None:
    """Refuse a file that is not the one with that digest; None does not check it.

    Raises:
        DataError: it is another, or can't be read.
    """
    if sha256 is not None and (found := input_sha256(path, what)) != sha256.lower():
        raise DataError(
            f"{what} file {path} has sha256 {found}, expected {sha256}: "
            f"restore the file, or set data.{what}.sha256 to the new digest"
        )


def read_npz(path: str | Path, what: What) -> NDArray[Any]:
    """Read the array called ``what`` from an NPZ file.

    Raises:
        DataError: the file is missing, is no such file, or has no array of that name.
    """
    remedy = f"save it with numpy.savez(path, {what}=...)"
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{what} file {path} holds a bare array, expected an NPZ archive: {remedy}")
        with archive:
            if what not in archive:
                raise DataError(f"{what} file {path} has arrays {sorted(archive)}, expected {what!r}: {remedy}")
            return np.asarray(archive[what])
    except OSError as error:
        raise unreadable(path, what, error) from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{what} file {path} is not a readable NPZ archive of numbers: {remedy}") from error


def unreadable(path: str | Path, what: What, error: OSError | ValueError) -> DataError:
    """The error of a file that can't be read."""
    reason = error.strerror if isinstance(error, OSError) else None
    named = str(path) if str(path).isprintable() else repr(str(path))
    return DataError(f"can't read the {what} {named}: {reason or error}; check data.{what}.path")
