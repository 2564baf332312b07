"""File layouts of other programs: NPZ of tike and PtychoPINN, CXI, and any NPZ or HDF5 file with mapped names.

Arrays are returned as they are in the file; `importing` converts them to a scan.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fnostab.errors import DataError
from fnostab.ptychography.scans.archives import Archive, listed, open_archive
from fnostab.ptychography.scans.scan_file import Kind

MAPPED = ("diffraction", "probe", "positions", "rows", "columns", "object", "mask", "bad")  # names that --map accepts
PLANCK_LIGHT = 1.98644586e-25  # joule metre
ELECTRON_VOLT = 1.602176634e-19  # joule

CXI: dict[str, tuple[str, ...]] = {  # alternative paths in CXI and NXcxi_ptycho files
    "diffraction": ("entry_1/data_1/data", "entry_1/instrument_1/detector_1/data"),
    "positions": ("entry_1/data_1/translation", "entry_1/sample_1/geometry_1/translation"),
    "probe": ("entry_1/instrument_1/source_1/probe", "entry_1/instrument_1/source_1/illumination"),
    "bad": ("entry_1/instrument_1/detector_1/mask",),
    "object": ("entry_1/image_1/data",),
    "energy": ("entry_1/instrument_1/source_1/energy", "entry_1/instrument_1/beam_1/incident_beam_energy"),
    "distance": ("entry_1/instrument_1/detector_1/distance",),
    "detector_pixel": ("entry_1/instrument_1/detector_1/x_pixel_size",),
}
SCALARS = ("energy", "distance", "detector_pixel")


@dataclass
class Found:
    """Unmodified arrays of a file, and properties implied by its layout.

    Attributes:
        layout: name of the layout.
        arrays: arrays by the names of `MAPPED`.
        sources: origin of each array: its name in the file, or another file and the name there.
        kind: kind of the diffraction data; None if the layout does not define it.
        of: point of a patch that positions refer to; None if the layout does not define it.
        metres: whether positions are in metres.
        wavelength: wavelength in metres, if known.
        distance: distance from object to detector in metres, if known.
        detector_pixel: size of a detector pixel in metres, if known.
        notes: assumptions made.
        left: names of unused arrays.
        elsewhere: names of arrays from other files.
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
    elsewhere: frozenset[str] = frozenset()


def read_layout(path: Path, mapped: Mapping[str, str]) -> Found:
    """Read diffraction, probe, positions and other arrays from a file.

    Args:
        path: NPZ file, optionally compressed by bzip2 or gzip, or HDF5 file.
        mapped: array names by the names of `MAPPED`; they override the layout's own. FILE:NAME is an array of another
            file. In HDF5 ``*`` matches any part between slashes, and matching arrays are concatenated.

    Raises:
        DataError: a file can't be read or contains pickled objects, or its layout is not known.
    """
    other = {name: elsewhere for name, place in mapped.items() if (elsewhere := _other_file(place))}
    here = {name: place for name, place in mapped.items() if name not in other}
    with open_archive(path) as archive:
        if archive.is_own:
            raise DataError(f"{path} is a scan file of fnostab already: look at it with `fnostab data show {path}`")
        found = _of_cxi(archive) if archive.is_hdf5 else _of_npz(archive)
        if found is None and not mapped:
            raise DataError(
                f"{path} has no known layout, it holds {listed(archive.names)}: name its arrays, as in "
                "--map diffraction=NAME --map probe=NAME --map positions=NAME"
            )
        found = found or Found(f"{'HDF5' if archive.is_hdf5 else 'NPZ'} with --map", {}, {})
        _take(archive, found, here, mapped)
        found.arrays = {name: archive.read(place) for name, place in found.sources.items()}
    for name, (file, inside) in other.items():
        with open_archive(file) as archive:
            _insist(archive, name, inside)
            found.arrays[name] = archive.read(inside)
        found.sources[name] = f"{file.name}: {inside}"
    found.elsewhere = frozenset(other)
    if "positions" in mapped or "rows" in mapped:
        found.metres = False
    elif found.metres and "positions" in found.arrays:
        translation = found.arrays["positions"].reshape(-1, found.arrays["positions"].shape[-1])
        if translation.shape[1] in (2, 3):  # (x, y, z) in metres
            found.arrays["positions"] = translation[:, [1, 0]]
            found.notes.append("translation is (x, y): columns and rows")
    return found


def _other_file(place: str) -> tuple[Path, str] | None:
    """Split FILE:NAME, both of which may contain colons, at an existing file; None without such a file."""
    colons = [at for at, character in enumerate(place) if character == ":"]
    splits = ((Path(place[:at]), place[at + 1 :]) for at in colons)
    return next(((file, inside) for file, inside in splits if inside and file.is_file()), None)


def _of_npz(archive: Archive) -> Found | None:
    there = set(archive.names)
    if {"data", "scan"} <= there:
        own = {"diffraction": "data", "positions": "scan", "probe": "probe", "object": "psi"}
        return Found("tike NPZ", {}, own, of="corner")
    if {"xcoords", "ycoords"} <= there and there & {"diffraction", "diff3d"}:
        first = "diffraction" if "diffraction" in there else "diff3d"
        own = {"diffraction": first, "rows": "ycoords", "columns": "xcoords"}
        own |= {"probe": "probeGuess", "object": "objectGuess"}
        return Found("PtychoPINN NPZ", {}, own, kind="amplitude", of="centre")
    return None


def _of_cxi(archive: Archive) -> Found | None:
    own = {name: next(filter(archive.find, places), "") for name, places in CXI.items()}
    if not own["diffraction"]:
        return None
    scalars = {name: own.pop(name) for name in SCALARS}
    found = Found("CXI", {}, own, of="corner", metres=True)
    for name, place in scalars.items():
        if place:
            _set_scalar(found, name, float(np.ravel(archive.read(place))[0]))
            archive.names[:] = [each for each in archive.names if each != place]
    return found


def _take(archive: Archive, found: Found, here: Mapping[str, str], mapped: Mapping[str, str]) -> None:
    """Override the layout's array names by mapped ones, and record the unused arrays."""
    for name, place in here.items():
        _insist(archive, name, place)
    own = {name: place for name, place in found.sources.items() if name not in mapped and place and archive.find(place)}
    if "positions" in mapped:
        own = {name: place for name, place in own.items() if name not in ("rows", "columns")}
    elif "rows" in mapped:
        own.pop("positions", None)
    found.sources = own | dict(here)
    used = {name for place in found.sources.values() for name in archive.find(place)}
    found.left += [name for name in archive.names if name not in used]


def _insist(archive: Archive, name: str, place: str) -> None:
    if not archive.find(place):
        file = place.rpartition(":")[0]
        no_file = f"no file {file}, as seen from the working directory, and " if file else ""
        raise DataError(
            f"--map {name}={place}: {no_file}{archive.path} has {listed(archive.names)}; FILE:NAME is an array of "
            "another file"
        )


def _set_scalar(found: Found, name: str, value: float) -> None:
    if name != "energy":
        setattr(found, name, value)
        return
    joule = value if value < 1e-10 else value * ELECTRON_VOLT
    unit = "J" if value < 1e-10 else "eV"
    found.wavelength = PLANCK_LIGHT / joule
    found.notes.append(f"energy {value:.6g} is in {unit}: wavelength {found.wavelength:.4g} m")
