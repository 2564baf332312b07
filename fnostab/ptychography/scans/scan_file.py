"""Measured scan, and the HDF5 file format of fnostab for it.

    /               attributes format = "fnostab-scan", version = 1, pixel_size (metres, if known)
    /diffraction    (n, M, M) float32; kind: counts, intensity or amplitude; zero frequency at (M // 2, M // 2)
    /probe          (M, M) complex64
    /positions      (n, 2) float64: corner (row, column) of each patch in object pixels, fractional
    /mask           (M, M) bool: true for valid detector pixels
    /object         (H, W) complex64, optional: pixel (0, 0) is position (0, 0)

The attribute ``source`` of each array describes its origin.
"""

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fnostab.errors import DataError
from fnostab.record.safe_files import replaced

if TYPE_CHECKING:
    import h5py

Kind = Literal["counts", "intensity", "amplitude"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FORMAT, VERSION = "fnostab-scan", 1
FIGURE_MARK = "figure of a scan file of fnostab"  # in the metadata of a PNG file
ARRAYS = {  # with their number of dimensions and kinds of dtype
    "diffraction": (3, "fiu"),
    "probe": (2, "c"),
    "positions": (2, "fiu"),
    "mask": (2, "b"),
    "object": (2, "c"),
}


@dataclass(frozen=True, eq=False)
class Scan:
    """Measured scan, the content of a scan file.

    Attributes:
        diffraction: patterns, float32 of shape (n, M, M), with the zero frequency at (M // 2, M // 2).
        kind: kind of the diffraction data.
        probe: complex64 of shape (M, M).
        positions: corner (row, column) of each patch in object pixels, float64 of shape (n, 2).
        mask: true for valid detector pixels, bool of shape (M, M).
        object: known or reconstructed object, complex64 of shape (H, W); None if there is none.
        pixel_size: size of an object pixel in metres; None if unknown.
        sources: origin of each array.
    """

    diffraction: NDArray[np.float32]
    kind: Kind
    probe: NDArray[np.complex64]
    positions: NDArray[np.float64]
    mask: NDArray[np.bool_]
    object: NDArray[np.complex64] | None = None
    pixel_size: float | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def intensity(self) -> NDArray[np.float32]:
        """Measured intensity, shape (n, M, M), 0 outside the mask."""
        values = self.diffraction**2 if self.kind == "amplitude" else self.diffraction
        return np.where(self.mask, values, np.float32(0))


@dataclass(frozen=True)
class Outline:
    """Content of a scan file without its diffraction data and object.

    Attributes:
        side: pixels along a side of a pattern, M.
        kind: kind of the diffraction data.
        probe: complex64 of shape (M, M).
        positions: float64 of shape (n, 2).
        has_object: whether the file has an object, which serves as the reference.
    """

    side: int
    kind: Kind
    probe: NDArray[np.complex64]
    positions: NDArray[np.float64]
    has_object: bool


def probe_width(probe: NDArray[Any]) -> float:
    """Width of a probe (M, M) in pixels: diameter of the uniform disk with the same (sum I)^2 / sum I^2."""
    intensity = np.abs(probe.astype(complex)) ** 2
    return float(2 * np.sqrt(intensity.sum() ** 2 / (intensity**2).sum() / np.pi))


@contextmanager
def open_hdf5(path: str | Path) -> Iterator["h5py.File"]:
    """Open an HDF5 file for reading.

    Raises:
        DataError: h5py is missing, or the file can't be read, is truncated, or is not an HDF5 file.
    """
    h5py = _h5py()
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:  # h5py raises the last two for damaged parts of a file
        if isinstance(error, OSError) and error.errno:
            raise DataError(f"can't read {path}: {os.strerror(error.errno)}; check its path") from error
        why = _reason(error)
        if "filter" in why or "plugin" in why:
            raise DataError(
                f"{path} uses a compression that HDF5 does not know ({why}): pip install hdf5plugin, or unpack it "
                "with `h5repack -f NONE`"
            ) from error
        raise DataError(f"{path} is truncated, damaged or not an HDF5 file ({why}): copy it again") from error


def read_scan(path: str | Path) -> Scan:
    """Read a scan file.

    Raises:
        DataError: the file can't be read, or is not a scan file.
    """
    with open_hdf5(path) as file:
        outline = _outline(path, file)
        arrays = {name: file[name][()] for name in ARRAYS if name in file}
        sources = {name: str(file[name].attrs.get("source", "unknown")) for name in arrays}
        size = file.attrs.get("pixel_size")
    if not 0 <= arrays["diffraction"].min() <= arrays["diffraction"].max() < np.inf:
        raise DataError(f"{path} holds patterns that are negative or not finite: import the scan again")
    return Scan(kind=outline.kind, pixel_size=None if size is None else float(size), sources=sources, **arrays)


def read_outline(path: str | Path) -> Outline:
    """Read a scan file without its diffraction data and object.

    Raises:
        DataError: the file can't be read, or is not a scan file.
    """
    with open_hdf5(path) as file:
        return _outline(path, file)


def check_place(path: Path) -> None:
    """Check that a scan file can be written to ``path``, before the scan is imported. A scan file may be overwritten.

    Raises:
        DataError: h5py is missing, the folder is missing or not writable, ``path`` is another file, or a file is where
            the figure of a new one is to be written.
    """
    _h5py()
    if not os.access(path.parent, os.W_OK):
        raise DataError(f"--out {path}: {path.parent} is not a writable folder: name another, or make it")
    if path.suffix == ".png":
        raise DataError(f"--out {path}: the figure is written there: name another, as in scan.h5")
    check_figure(path)
    if path.exists():
        try:
            read_outline(path)
        except DataError as error:
            raise DataError(f"--out {path} exists and is not a scan file of fnostab: name another") from error


def check_figure(path: Path) -> Path:
    """Return the place of the figure of a scan file: beside it, where no other picture is.

    Raises:
        DataError: a file that is no figure of a scan is there.
    """
    figure = path.with_suffix(".png")
    try:
        with open(figure, "rb") as file:
            is_own = FIGURE_MARK.encode() in file.read(4096)
    except FileNotFoundError:
        return figure
    except OSError:
        is_own = False
    if not is_own:
        raise DataError(f"{figure}, where the figure of {path} is written, exists: move it, or name another scan file")
    return figure


def write_scan(scan: Scan, path: Path) -> None:
    """Write a scan file atomically.

    Raises:
        DataError: the file can't be written.
    """
    h5py = _h5py()
    try:
        with replaced(path) as partial, h5py.File(partial, "x") as file:
            file.attrs.update(format=FORMAT, version=VERSION)
            if scan.pixel_size is not None:
                file.attrs["pixel_size"] = scan.pixel_size
            for name in ARRAYS:
                array = getattr(scan, name)
                if array is None:
                    continue
                packed: dict[str, Any] = {}
                if name == "diffraction":
                    packed = {"compression": "gzip", "shuffle": True, "chunks": (1, *array.shape[1:])}
                file.create_dataset(name, data=array, **packed).attrs["source"] = scan.sources.get(name, "unknown")
            file["diffraction"].attrs.update(kind=scan.kind, zero_frequency="centre")
            file["positions"].attrs.update(unit="pixel", of="corner", order="row, column")
    except OSError as error:
        raise DataError(f"can't write {path}: {_reason(error)}: choose another --out") from error


def _outline(path: str | Path, file: "h5py.File") -> Outline:
    remedy = f"make it with `fnostab data import {shlex.quote(str(path))} --out scan.h5`"
    if file.attrs.get("format") != FORMAT:
        raise DataError(f"{path} is an HDF5 file, but not a scan file of fnostab: {remedy}")
    if file.attrs.get("version") != VERSION:
        raise DataError(f"{path} has version {file.attrs.get('version')}, expected {VERSION}: import the scan again")
    for name, (dimensions, kinds) in ARRAYS.items():
        array = file.get(name)
        if array is None and name == "object":
            continue
        if getattr(array, "ndim", None) != dimensions or array.dtype.kind not in kinds:
            found = f"{array.shape} {array.dtype}" if hasattr(array, "shape") else "missing"
            what = {"c": "complex numbers", "b": "bool"}.get(kinds, "real numbers")
            raise DataError(
                f"{path}: {name} is {found}, expected {dimensions} dimensions of {what}: import the scan again"
            )
    kind = str(file["diffraction"].attrs.get("kind"))
    if kind not in KINDS:
        raise DataError(f"{path} holds diffraction of kind {kind!r}, expected {', '.join(KINDS)}: import it again")
    n, *shape = file["diffraction"].shape
    expected = {"probe": (shape[0],) * 2, "mask": (shape[0],) * 2, "positions": (n, 2)}
    if not n or shape[0] != shape[1] or any(file[name].shape != size for name, size in expected.items()):
        raise DataError(f"{path} holds arrays whose shapes do not fit each other: import the scan again")
    probe, positions = file["probe"][()], file["positions"][()]
    if not (np.isfinite(probe).all() and probe.any() and np.isfinite(positions).all()):
        raise DataError(f"{path} holds a probe that is zero, or values that are not finite: import the scan again")
    if "object" in file and (positions.min() < 0 or (positions.max(axis=0) + shape[0] > file["object"].shape).any()):
        raise DataError(f"{path}: some positions lie outside the object: import the scan again")
    return Outline(shape[0], kind, probe, positions, "object" in file)  # type: ignore[arg-type]


def _reason(error: Exception) -> str:
    """Reason of an error in one line; HDF5 embeds the system's message in a longer text."""
    system = re.search(r"error message = '(.+?)'", str(error))
    return system[1] if system else (getattr(error, "strerror", None) or str(error)).splitlines()[0]


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise DataError("scan files need h5py: pip install 'fnostab[data]'") from error
    with suppress(ImportError):
        import_module("hdf5plugin")  # optional: registers the compression filters of detectors
    return h5py
