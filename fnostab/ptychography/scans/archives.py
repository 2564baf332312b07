"""Read named numeric arrays from NPZ files (also bzip2- or gzip-compressed) and HDF5. Nothing is unpickled."""

import bz2
import gzip
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fnostab.errors import DataError
from fnostab.ptychography.scans.scan_file import open_hdf5

LARGEST_LISTED = 12  # names listed in an error message
REMEDY = (
    "copy it again if it is damaged; expected an NPZ archive of numbers or an HDF5 file, which ptypy, PtychoShelves "
    "and others can write"
)
UNREADABLE = (ValueError, EOFError, OSError, RuntimeError, TokenError, zipfile.BadZipFile, zlib.error)
HDF5_MAGIC, HDF5_PLACES = b"\x89HDF\r\n\x1a\n", (0, 512, 1024, 2048)  # MATLAB writes 512 bytes before it
COMPLEX_FIELDS = (("real", "imag"), ("r", "i"))  # as written by MATLAB and by h5py


@dataclass(frozen=True)
class Archive:
    """Open file with named arrays.

    Attributes:
        path: path of the file.
        is_hdf5: whether it is an HDF5 file; otherwise it is NPZ.
        is_own: whether it is a scan file of fnostab.
        names: names of all arrays.
        find: returns the array names that match a name or, in HDF5, a pattern with ``*``; empty without a match.
        read: reads the array of such a name; raises DataError if it is not numeric.
        unit: returns the ``units`` attribute of such a name; empty without one.
    """

    path: Path
    is_hdf5: bool
    is_own: bool
    names: list[str]
    find: Callable[[str], list[str]]
    read: Callable[[str], NDArray[Any]]
    unit: Callable[[str], str]


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open an NPZ or HDF5 file for reading.

    Raises:
        DataError: the file can't be read, or its format is not known.
    """
    with _open_hdf5_archive(path) if _is_hdf5(path) else _open_npz(path) as archive:
        yield archive


def _is_hdf5(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(HDF5_PLACES[-1] + len(HDF5_MAGIC))
    except OSError as error:
        raise _unreadable(path, error) from error
    return any(head[place:].startswith(HDF5_MAGIC) for place in HDF5_PLACES)


def listed(names: Iterable[str]) -> str:
    """Format the first names for an error message."""
    all_names = sorted(names)
    more = f" and {len(all_names) - LARGEST_LISTED} more" if len(all_names) > LARGEST_LISTED else ""
    return (", ".join(all_names[:LARGEST_LISTED]) or "nothing") + more


@contextmanager
def _open_npz(path: Path) -> Iterator[Archive]:
    try:
        archive = np.load(_unpacked(path), allow_pickle=False)
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise DataError(f"{path} holds a bare array: {REMEDY}")

    def read(place: str) -> NDArray[Any]:
        try:
            return _plain(path, place, archive[place])
        except UNREADABLE as error:
            if "pickle" not in str(error):
                raise _unreadable(path, error) from error
            raise DataError(
                f"{path}: {place} is a pickled object, which is never loaded: save it as an array of numbers, or name "
                "another with --map"
            ) from error

    with archive:
        names = list(archive)
        yield Archive(path, False, False, names, lambda place: [place] if place in names else [], read, lambda _: "")


def _unpacked(path: Path) -> Path | io.BytesIO:
    with path.open("rb") as file:
        head = file.read(6)
    unpack = bz2.decompress if head.startswith(b"BZh") else gzip.decompress if head.startswith(b"\x1f\x8b") else None
    if head == b"MATLAB":
        raise ValueError("a MATLAB file older than v7.3: save it again with -v7.3")
    if unpack is None:
        return path
    content = unpack(path.read_bytes())
    if content.startswith(HDF5_MAGIC):
        raise ValueError("a compressed HDF5 file: unpack it with gunzip or bunzip2")
    return io.BytesIO(content)


def _unreadable(path: Path, error: Exception) -> DataError:
    if isinstance(error, OSError) and error.errno:
        return DataError(f"can't read {path}: {error.strerror}; check its path")
    why = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "pickle" in why:  # numpy's message for a file that is not an archive
        why = "not an NPZ archive"
    return DataError(f"{path} can't be read ({why}): {REMEDY}")


@contextmanager
def _open_hdf5_archive(path: Path) -> Iterator[Archive]:
    with open_hdf5(path) as file:
        names: list[str] = []

        def note(name: str | bytes, item: Any) -> None:
            if hasattr(item, "shape"):
                names.append(name if isinstance(name, str) else name.decode(errors="replace"))  # bytes: not UTF-8

        file.visititems(note)

        def read(place: str) -> NDArray[Any]:
            found = _places(file, place)
            for each in found:
                _insist_on_sources(path, file[each])
            parts = [_plain(path, each, file[each][()]) for each in found]
            return parts[0] if len(parts) == 1 else _joined(path, place, parts)

        def unit(place: str) -> str:
            named = next(iter(np.ravel(file[_places(file, place)[0]].attrs.get("units", ""))), "")
            return named.decode(errors="replace") if isinstance(named, bytes) else str(named)

        is_own = file.attrs.get("format") == "fnostab-scan"
        yield Archive(path, True, is_own, names, lambda place: _places(file, place), read, unit)


def _places(file: Any, place: str) -> list[str]:
    """Arrays that match a name, where ``*`` is any text between slashes, in numerical order; links are followed."""
    found = [""]
    for part in place.strip("/").split("/"):
        found = [
            f"{begin}/{name}".strip("/")
            for begin in found
            for name in (_numbered(_item(file, begin or "/"), part) if "*" in part else [part])
            if _is_there(file, f"{begin}/{name}".strip("/"))
        ]
    return [each for each in found if hasattr(_item(file, each), "shape")]


def _joined(path: Path, place: str, parts: list[NDArray[Any]]) -> NDArray[Any]:
    shapes = {part.shape for part in parts}
    (one, *others) = shapes
    if not others and (one in ((2,), (3,)) or (len(one) == 2 and min(one) > 3)):  # a position or a pattern each
        return np.stack(parts)
    parts = [np.atleast_1d(part) for part in parts]
    if len(rest := {part.shape[1:] for part in parts}) > 1:
        raise DataError(f"{path}: arrays of {place} have {len(rest)} different shapes and can't be joined")
    return np.concatenate(parts)


def _is_there(file: Any, place: str) -> bool:
    try:
        return place in file
    except RuntimeError:  # below a circular link
        return False


def _item(file: Any, place: str) -> Any:
    try:
        return file[place]
    except (KeyError, RuntimeError) as error:
        link = file.get(place, getlink=True)
        what = "broken link: repair it"
        if hasattr(link, "filename"):
            what = f"link to {link.filename}, which is missing: copy that file"
        raise DataError(f"{file.filename}: {place} is a {what}, or name another with --map") from error


def _insist_on_sources(path: Path, dataset: Any) -> None:
    """Refuse a virtual dataset with a missing source file, whose part HDF5 would read as zeros."""
    folders = (Path(), Path(dataset.file.filename).parent, Path(os.environ.get("HDF5_VDS_PREFIX", "")))
    for source in dataset.virtual_sources() if dataset.is_virtual else ():
        name = source.file_name
        if name != "." and "%" not in name and not any((folder / name).exists() for folder in folders):
            raise DataError(
                f"{path}: {dataset.name} is assembled from other files, of which {name} is missing: copy it to the "
                "same place beside this one"
            )


def _numbered(group: Any, pattern: str) -> list[str]:
    names = [name for name in group if fnmatchcase(name, pattern)] if hasattr(group, "keys") else []
    return sorted(names, key=lambda name: (len(name), name))


def _plain(path: Path, place: str, array: Any) -> NDArray[Any]:
    plain = np.asarray(array)
    if plain.dtype.names in COMPLEX_FIELDS:
        real, imaginary = plain.dtype.names
        return np.asarray(plain[real] + 1j * plain[imaginary])
    if plain.dtype.kind not in "biufc":
        raise DataError(f"{path}: {place} holds {plain.dtype}, expected numbers: name another with --map")
    return plain
