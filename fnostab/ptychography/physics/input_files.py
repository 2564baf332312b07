"""User-supplied files of probes, objects and scans: verified by SHA-256, never unpickled."""

import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fnostab.errors import DataError
from fnostab.record.settings import file_sha256

What = Literal["probe", "object", "scan"]


def input_sha256(path: str | Path, what: What) -> str:
    """SHA-256 of a file's bytes as hexadecimal digits.

    Raises:
        DataError: the file can't be read.
    """
    try:
        return file_sha256(path)
    except (OSError, ValueError) as error:  # for example a path with a NUL character
        raise unreadable(path, what, error) from error


def insist_on_sha256(path: str | Path, what: What, sha256: str | None) -> None:
    """Check that a file has the digest ``sha256``; None skips the check.

    Raises:
        DataError: the digest differs, or the file can't be read.
    """
    if sha256 is not None and (found := input_sha256(path, what)) != sha256.lower():
        raise DataError(
            f"{what} file {path} has sha256 {found}, expected {sha256}: "
            f"restore the file, or set {_setting(what)}sha256 to the new digest"
        )


def read_npz(path: str | Path, what: What) -> NDArray[Any]:
    """Read the array named ``what`` from an NPZ file.

    Raises:
        DataError: the file is missing, is not an NPZ file, or has no such array.
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
    """Build the error for a file that can't be read."""
    reason = error.strerror if isinstance(error, OSError) else None
    named = str(path) if str(path).isprintable() else repr(str(path))
    return DataError(f"can't read the {what} {named}: {reason or error}; check {_setting(what)}path")


def _setting(what: What) -> str:
    return "data." if what == "scan" else f"data.{what}."
