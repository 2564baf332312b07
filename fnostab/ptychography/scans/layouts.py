"""Read what other programs write: NPZ of tike and of PtychoPINN, CXI, and any NPZ or HDF5 by a map of names.

Nothing is unpickled. What is found is given as it is: `importing` makes a scan of it.
"""

import bz2
import io
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fnostab.errors import DataError
from fnostab.ptychography.scans.scan_file import Kind, open_hdf5

__all__ = ["MAPPED", "Found", "read_layout"]

MAPPED = ("diffraction", "probe", "positions", "rows", "columns", "object", "mask", "bad")  # names that --map takes
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
LARGEST_LISTED = 12  # names in an error
PLANCK_LIGHT = 1.98644586e-25  # joule metre
ELECTRON_VOLT = 1.602176634e-19  # joule

CXI: dict[str, tuple[str, ...]] = {  # where writers of CXI and NXcxi_ptycho put things
    "diffraction": ("entry_1/data_1/data", "entry_1/instrument_1/detector_1/data"),
    "positions": ("entry_1/data_1/translation", "entry_1/sample_1/geometry_1/translation"),
    "probe": ("entry_1/instrument_1/source_1/probe", "entry_1/instrument_1/source_1/illumination"),
    "bad": ("entry_1/instrument_1/detector_1/mask",),
    "object": ("entry_1/image_1/data",),
    "energy": ("entry_1/instrument_1/source_1/energy", "entry_1/instrument_1/beam_1/incident_beam_energy"),
    "distance": ("entry_1/instrument_1/detector_1/distance",),
    "detector_pixel": ("entry_1/instrument_1/detector_1/x_pixel_size",),
}


@dataclass
class Found:
    """Arrays of a file, as they are there, and what its layout says of them.

    Attributes:
        layout: its name.
        arrays: by the names of `MAPPED`.
        sources: where in the file each is.
        kind: of the diffraction; None if the layout does not say.
        of: what a position is of; None if the layout does not say.
        metres: whether positions are in metres.
        wavelength: in metres, with distance and detector pixel, where known.
        notes: what was assumed.
        left: names of the file's arrays that were not used.
    """

    layout: str
    arrays: dict[str, NDArray[Any]]
    sources: dict[str, str]
    kind: Kind | None = None
    of: Literal["corner", "centre"] | None = None
    metres: bool = False
    wavelength: float | None = None
    distance: float | None = None
    detector_pixel: float | None = None
    notes: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def read_layout(path: Path, mapped: Mapping[str, str]) -> Found:
    """Find diffraction, probe, positions and the rest in a file.

    Args:
        path: an NPZ file, packed by bzip2 or not, or an HDF5 file.
        mapped: places in it by the names of `MAPPED`; they win over the layout's own.

    Raises:
        DataError: the file can't be read, holds pickled objects, or its layout is not known.
    """
    head = _head(path)
    if head == HDF5_MAGIC:
        return _read_hdf5(path, mapped)
    return _read_npz(path, head, mapped)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(len(HDF5_MAGIC))
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror or error}; check its path") from error


def _read_npz(path: Path, head: bytes, mapped: Mapping[str, str]) -> Found:
    remedy = "expected an NPZ archive of numbers or an HDF5 file; ptypy, PtychoShelves and others can write HDF5 or CXI"
    try:
        content: Any = io.BytesIO(bz2.decompress(path.read_bytes())) if head.startswith(b"BZh") else path
        archive = np.load(content, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path} holds a bare array: {remedy}")
        with archive:
            found = _of_names(path, list(archive), mapped)
            found.arrays = {name: _npz_array(path, archive, place) for name, place in found.sources.items()}
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror or error}: {remedy}") from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} can't be read ({str(error).splitlines()[0]}): {remedy}") from error
    return found


def _npz_array(path: Path, archive: Any, place: str) -> NDArray[Any]:
    try:
        return np.asarray(archive[place])
    except ValueError as error:
        if "pickle" not in str(error):
            raise
        raise DataError(
            f"{path}: {place} is a pickled object, which is never loaded: save it as an array of numbers, or name "
            "another by --map"
        ) from error


def _of_names(path: Path, names: list[str], mapped: Mapping[str, str]) -> Found:
    there = set(names)
    if {"data", "scan"} <= there:
        own = {"diffraction": "data", "positions": "scan", "probe": "probe", "object": "psi"}
        found = Found("tike NPZ", {}, own, of="corner")
    elif {"xcoords", "ycoords"} <= there and there & {"diffraction", "diff3d"}:
        first = "diffraction" if "diffraction" in there else "diff3d"
        own = {"diffraction": first, "rows": "ycoords", "columns": "xcoords"}
        own |= {"probe": "probeGuess", "object": "objectGuess"}
        found = Found("PtychoPINN NPZ", {}, own, kind="amplitude", of="centre")
    elif mapped:
        found = Found("NPZ by --map", {}, {})
    else:
        raise DataError(
            f"{path} is in no known layout, it has {_listed(names)}: name its arrays, as in "
            "--map diffraction=NAME --map probe=NAME --map positions=NAME"
        )
    return _take(path, found, names, there.__contains__, mapped)


def _take(
    path: Path, found: Found, names: Iterable[str], there: Callable[[str], bool], mapped: Mapping[str, str]
) -> Found:
    """Lay what is mapped over the layout's own places, and note what is left."""
    for name, place in mapped.items():
        if not there(place):
            raise DataError(f"--map {name}={place}: {path} has {_listed(names)}")
    sources = {name: place for name, place in found.sources.items() if there(place)} | dict(mapped)
    if "positions" in mapped:
        sources = {name: place for name, place in sources.items() if name not in ("rows", "columns")}
    elif "rows" in mapped:
        sources.pop("positions", None)
    found.sources = sources
    found.left += [name for name in names if name not in sources.values()]
    return found


def _read_hdf5(path: Path, mapped: Mapping[str, str]) -> Found:
    with open_hdf5(path) as file:
        if file.attrs.get("format") == "fnostab-scan":
            raise DataError(f"{path} is a scan file of fnostab already: look at it with `fnostab data show {path}`")
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)

        def there(place: str) -> bool:  # through links too, which are not visited
            return place in file and hasattr(file[place], "shape")

        own = {name: next(filter(there, places), "") for name, places in CXI.items()}
        own = {name: place for name, place in own.items() if place}
        if "diffraction" in own:
            scalars = {name: own.pop(name) for name in ("energy", "distance", "detector_pixel") if name in own}
            found = Found("CXI", {}, own, of="corner", metres=True)
            for name, place in scalars.items():
                _set_scalar(found, name, float(np.ravel(file[place][()])[0]))
            names = [name for name in names if name not in scalars.values()]
        elif mapped:
            found = Found("HDF5 by --map", {}, {})
        else:
            raise DataError(
                f"{path} is in no known layout, it has {_listed(names)}: name its arrays, as in "
                "--map diffraction=PATH --map probe=PATH --map positions=PATH"
            )
        _take(path, found, names, there, mapped)
        found.arrays = {name: _plain(path, place, file[place][()]) for name, place in found.sources.items()}
    if found.metres and "positions" in found.arrays and "positions" not in mapped:
        translation = found.arrays["positions"]
        if translation.ndim == 2 and translation.shape[1] in (2, 3):  # (x, y, z) in metres
            found.arrays["positions"] = translation[:, [1, 0]]
            found.notes.append("translation is (x, y): columns and rows")
    elif "positions" in mapped or "rows" in mapped:
        found.metres = False
    return found


def _set_scalar(found: Found, name: str, value: float) -> None:
    if name != "energy":
        setattr(found, name, value)
        return
    joule = value if value < 1e-10 else value * ELECTRON_VOLT
    unit = "J" if value < 1e-10 else "eV"
    found.wavelength = PLANCK_LIGHT / joule
    found.notes.append(f"energy {value:.6g} is in {unit}: wavelength {found.wavelength:.4g} m")


def _plain(path: Path, place: str, array: Any) -> NDArray[Any]:
    plain = np.asarray(array)
    if plain.dtype.names == ("real", "imag") or plain.dtype.names == ("r", "i"):  # MATLAB's complex numbers
        real, imaginary = plain.dtype.names
        return np.asarray(plain[real] + 1j * plain[imaginary])
    if plain.dtype.kind not in "biufc":
        raise DataError(f"{path}: {place} holds {plain.dtype}, expected numbers: name another by --map")
    return plain


def _listed(names: Iterable[str]) -> str:
    all_names = sorted(names)
    more = f" and {len(all_names) - LARGEST_LISTED} more" if len(all_names) > LARGEST_LISTED else ""
    return (", ".join(all_names[:LARGEST_LISTED]) or "nothing") + more
