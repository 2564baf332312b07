"""File layouts of other programs: NPZ of tike and PtychoPINN, CXI, and any NPZ or HDF5 file with mapped names.

Arrays are returned as they are in the file; `importing` converts them to a scan.
"""

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fnostab.errors import DataError
from fnostab.ptychography.scans.archives import Archive, listed, open_archive
from fnostab.ptychography.scans.scan_file import Kind
from fnostab.record.settings import shown

Unit = Literal["pixel", "metre", "millimetre", "micrometre", "nanometre", "angstrom"]
IN_METRES: dict[Unit, float] = {
    "metre": 1.0,
    "millimetre": 1e-3,
    "micrometre": 1e-6,
    "nanometre": 1e-9,
    "angstrom": 1e-10,
}
LENGTHS: dict[str, Unit] = {  # units attributes of HDF5, in lower case
    "m": "metre",
    "mm": "millimetre",
    "um": "micrometre",
    "\u00b5m": "micrometre",
    "\u03bcm": "micrometre",
    "micron": "micrometre",
    "\u00e5": "angstrom",
    "nm": "nanometre",
    "pixel": "pixel",
    "px": "pixel",
    **{spelt: unit for unit in IN_METRES for spelt in (unit, unit.replace("metre", "meter"))},
}
ENERGIES = {"j": "J", "joule": "J", "ev": "eV", "kev": "keV"}
POSITIONS = ("positions", "rows", "columns")
MAPPED = ("diffraction", "probe", "positions", "rows", "columns", "object", "mask", "bad")  # names that --map accepts
PLANCK_LIGHT = 1.98644586e-25  # joule metre
ELECTRON_VOLT = 1.602176634e-19  # joule

CXI: dict[str, tuple[str, ...]] = {  # alternative paths in CXI and NXcxi_ptycho files
    "diffraction": ("entry_1/data_1/data", "entry_1/instrument_1/detector_1/data"),
    "positions": ("entry_1/data_1/translation", "entry_1/sample_1/geometry_1/translation"),
    "probe": ("entry_1/instrument_1/source_1/probe", "entry_1/instrument_1/source_1/illumination"),
    "bad": ("entry_1/instrument_1/detector_1/mask",),
    "object": ("entry_1/image_1/data",),
    "energy": (
        "entry_1/instrument_1/beam_1/incident_beam_energy",
        "entry_1/instrument_1/beam_1/incident_energy",
        "entry_1/instrument_1/beam_1/energy",
        "entry_1/instrument_1/source_1/energy",  # last: in NXcxi_ptycho that of the machine, in CXI that of the photons
    ),
    "distance": ("entry_1/instrument_1/detector_1/distance",),
    "detector_pixel": ("entry_1/instrument_1/detector_1/x_pixel_size",),
    "pixel_height": ("entry_1/instrument_1/detector_1/y_pixel_size",),
}
SCALARS = ("energy", "distance", "detector_pixel", "pixel_height")
SQUARE = 0.01  # relative difference up to which the sides of a detector pixel are equal


@dataclass
class Found:
    """Unmodified arrays of a file, and properties implied by its layout.

    Attributes:
        layout: name of the layout.
        arrays: arrays by the names of `MAPPED`.
        sources: origin of each array: its name in the file, or another file and the name there.
        kind: kind of the diffraction data; None if the layout does not define it.
        of: point of a patch that positions refer to; None if the layout does not define it.
        unit: unit of the positions; None if the file names another one than `LENGTHS`.
        unit_text: attribute ``units`` of the positions; empty without one.
        wavelength: wavelength in metres, if known.
        distance: distance from object to detector in metres, if known.
        detector_pixel: width of a detector pixel in metres, if known.
        pixel_height: its height in metres, if known.
        notes: assumptions made.
        left: names of unused arrays.
        elsewhere: names of arrays from other files.
    """

    layout: str
    arrays: dict[str, NDArray[Any]]
    sources: dict[str, str]
    kind: Kind | None = None
    of: Literal["corner", "centre"] | None = None
    unit: Unit | None = "pixel"
    unit_text: str = ""
    wavelength: float | None = None
    distance: float | None = None
    detector_pixel: float | None = None
    pixel_height: float | None = None
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
            raise DataError(
                f"{path} is a scan file of fnostab already: look at it with "
                f"`fnostab data show {shlex.quote(str(path))}`"
            )
        found = _of_cxi(archive, mapped) if archive.is_hdf5 else _of_npz(archive)
        if found is None and not mapped:
            raise DataError(
                f"{path} has no known layout, it holds {listed(archive.names)}: name its arrays, as in "
                "--map diffraction=NAME --map probe=NAME --map positions=NAME"
            )
        found = found or Found(f"{'HDF5' if archive.is_hdf5 else 'NPZ'} with --map", {}, {})
        _take(archive, found, here, mapped)
        found.arrays = {name: archive.read(place) for name, place in found.sources.items()}
        units = {archive.unit(place) for name, place in found.sources.items() if name in POSITIONS}
    for name, (file, inside) in other.items():
        with open_archive(file) as archive:
            _insist(archive, name, inside)
            found.arrays[name] = archive.read(inside)
            units |= {archive.unit(inside)} if name in POSITIONS else set()
        found.sources[name] = f"{file.name}: {inside}"
    found.elsewhere = frozenset(other)
    if "positions" in mapped or "rows" in mapped:
        found.unit = "pixel"
    elif found.unit != "pixel" and "positions" in found.arrays:
        translation = found.arrays["positions"]
        if translation.ndim == 2 and translation.shape[0] in (2, 3) and translation.shape[1] > 3:
            translation = translation.T
        if translation.ndim > 1 and translation.shape[-1] in (2, 3):  # (x, y, z)
            found.arrays["positions"] = translation.reshape(-1, translation.shape[-1])[:, [1, 0]]
            found.notes.append("translation is (x, y): columns and rows")
    if text := " and ".join(sorted(units)).strip():
        found.unit, found.unit_text = _length(text), text
    return found


def _length(text: str) -> Unit | None:
    return LENGTHS.get(text.strip().lower().removesuffix("s"))


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


def _of_cxi(archive: Archive, mapped: Mapping[str, str]) -> Found | None:
    def first(name: str, places: tuple[str, ...]) -> str:
        for place in places:
            try:
                if archive.find(place):
                    return place
            except DataError:  # a broken link
                if name not in mapped:
                    raise
        return ""

    own = {name: first(name, places) for name, places in CXI.items()}
    if not own["diffraction"]:
        return None
    scalars = {name: own.pop(name) for name in SCALARS}
    found = Found("CXI", {}, own, of="corner", unit="metre")
    for name, place in scalars.items():
        if place:
            _set_scalar(found, name, archive, place)
            archive.names[:] = [each for each in archive.names if each != place]
        elif name != "pixel_height":
            found.notes.append(f"{name} is not known, since there is no {CXI[name][-1]}")
    width, height = found.detector_pixel, found.pixel_height
    if width and height and abs(width - height) > SQUARE * width:
        raise DataError(
            f"{archive.path}: detector pixels are {height:.4g} m high and {width:.4g} m wide, expected square ones: "
            "sum neighbours until they are, or correct x_pixel_size and y_pixel_size"
        )
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
    if "mask" in mapped:  # it may be the layout's own, with the opposite meaning
        own.pop("bad", None)
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


def _set_scalar(found: Found, name: str, archive: Archive, place: str) -> None:
    try:
        value = float(np.ravel(archive.read(place))[0])
    except (DataError, IndexError):  # text, or nothing
        value = math.nan
    text = archive.unit(place).strip()
    energy, metres = ENERGIES.get(text.lower() or "ev"), IN_METRES.get(_length(text or "m") or "pixel")
    if not 0 < value < math.inf:
        found.notes.append(f"{name} is not known, since {place} is no number above 0")
    elif (energy if name == "energy" else metres) is None:
        accepted = "J, eV or keV" if name == "energy" else "m, mm, um, nm or angstrom"
        found.notes.append(f"{name} is not known, since {place} is in {shown(text)}, expected {accepted}")
    elif name != "energy":
        setattr(found, name, value * (metres or 1.0))
    else:
        unit = "J" if value < 1e-10 else "keV" if energy == "keV" else "eV"
        factor = {"J": 1.0, "eV": ELECTRON_VOLT, "keV": 1e3 * ELECTRON_VOLT}[unit]
        found.wavelength = PLANCK_LIGHT / (value * factor)
        found.notes.append(f"energy {value:.6g} is in {unit}: wavelength {found.wavelength:.4g} m")
