"""Import a scan written by another program: read, check and complete it, and report every assumption."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from fnostab.errors import DataError
from fnostab.ptychography.scans.archives import listed
from fnostab.ptychography.scans.arrays import (
    bad_pixels_of,
    complex_of,
    insist_on_range,
    kind_of,
    patterns_of,
    positions_of,
    probe_of,
    shape_text,
)
from fnostab.ptychography.scans.defects import Defects, find_defects, no_number, offset_share
from fnostab.ptychography.scans.epie import epie
from fnostab.ptychography.scans.geometry import far_field_pixel, overlap_lines, refuse_far_apart, refuse_near_field
from fnostab.ptychography.scans.given_object import with_object
from fnostab.ptychography.scans.layouts import Found, Unit, read_layout
from fnostab.ptychography.scans.orientation import orient, turned
from fnostab.ptychography.scans.resizing import central, crop_probe
from fnostab.ptychography.scans.scan_file import Kind, Scan

OFF_CENTRE = 0.05  # share of the side by which a beam is off the centre
ENOUGH_PATTERNS = 200  # patterns to average, approximately
OFFSET = 0.01  # share of the intensity from which an offset is reported


@dataclass(frozen=True)
class ImportOptions:
    """User's options for an import; None leaves the choice to the layout and the checks.

    Attributes:
        mapped: array names in the file by the names of `layouts.MAPPED`.
        kind: kind of the diffraction data.
        of: point of a patch that positions refer to.
        unit: unit of the positions.
        pixel_size: size of an object pixel in metres.
        zero_frequency: location of the zero frequency in a pattern.
        crop: side in pixels of the central part of the patterns to keep.
        orientation: orientation of the positions, a name in `ORIENTATIONS`.
        sweeps: sweeps of ePIE; 0 for no reconstruction.
        keep_probe: keep the file's probe instead of the refined one; implied if the file has an object.
        far_field: assume the far field even if the Fresnel number indicates the near field.
    """

    mapped: Mapping[str, str] = field(default_factory=dict)
    kind: Kind | None = None
    of: Literal["corner", "centre"] | None = None
    unit: Unit | None = None
    pixel_size: float | None = None
    zero_frequency: Literal["centre", "corner"] | None = None
    crop: int | None = None
    orientation: str | None = None
    sweeps: int = 30
    keep_probe: bool = False
    far_field: bool = False


@dataclass(frozen=True, eq=False)
class Imported:
    """Imported scan with its report.

    Attributes:
        scan: the scan, to be written.
        lines: report of what was taken, assumed, checked and left out.
    """

    scan: Scan
    lines: list[str]


def import_scan(path: Path, options: ImportOptions) -> Imported:
    """Read, check and complete a scan.

    Raises:
        DataError: the scan can't be used; one line, with the finding and the option that solves the problem.
    """
    try:
        return _import(path, options)
    except MemoryError as error:
        raise DataError(
            f"{path} needs more memory than there is ({error}): leave out patterns, or cut them around the zero "
            "frequency"
        ) from error


def _import(path: Path, options: ImportOptions) -> Imported:
    found = read_layout(path, options.mapped)
    lines = [f"layout: {found.layout}"]
    lines += [f"took {name} from {place}: {shape_text(found.arrays[name])}" for name, place in found.sources.items()]
    lines += [f"assumed: {note}" for note in found.notes]

    probe = probe_of(path, found, lines)
    diffraction = patterns_of(path, found, lines)
    positions, in_metres = positions_of(path, found, options.unit, len(diffraction), lines)
    kind = kind_of(path, found, options.kind, diffraction, lines)
    bad = bad_pixels_of(path, found, options.mapped, diffraction.shape, lines)

    if not options.far_field:
        refuse_near_field(path, found, probe)
    if probe is None:
        raise DataError(f"{path} has no probe: give one with --map probe=NAME or --map probe=FILE:NAME")
    diffraction, bad = _centred(path, diffraction, bad, kind, options, lines)
    patterns, mask, kept = _without_defects(path, diffraction, bad, lines)
    insist_on_range(path, kind, patterns)
    lines += _offset(patterns, mask, kind)
    positions = positions[kept]
    pixel_size = options.pixel_size or far_field_pixel(found, probe.shape[-1])
    if in_metres:
        if pixel_size is None:
            why = ", ".join(note for note in found.notes if "not known" in note)
            raise DataError(
                f"{path}: positions are lengths and the object's pixel is not known{f' ({why})' if why else ''}: "
                "give --pixel-size"
            )
        positions = positions / pixel_size
    if (span := np.ptp(positions, axis=0).max()) < 1:
        raise DataError(
            f"{path}: positions span {span:.3g} pixels, less than one: name others with --map positions=NAME, or "
            "give their unit with --unit and --pixel-size"
        )
    refuse_far_apart(path, positions, patterns.shape[-1])
    patterns, mask, probe, zoom = _cropped(path, patterns, mask, probe, options, lines)
    positions = positions * zoom
    pixel_size = None if pixel_size is None else pixel_size / zoom
    of = options.of or found.of
    if of is None:
        raise DataError(f"{path} does not say whether positions are of a patch's corner or centre: give --positions")
    lines.append(f"positions are those of a patch's {of}, in pixels of {_metres(pixel_size)}")

    scan = Scan(patterns, kind, probe, positions, mask, None, pixel_size, _sources(path, found))
    if options.orientation is not None:
        scan = replace(scan, positions=turned(scan.positions, options.orientation))
    if "object" in found.arrays:
        scan = with_object(scan, np.squeeze(complex_of(found, "object", lines)), zoom, of, lines)
    if options.orientation is None and scan.object is None and options.sweeps and len(scan.positions) >= 4:
        scan, line = orient(scan)
        lines.append(line)
    elif options.orientation is None:
        lines.append("orientation of the positions: as given, not checked (--orientation)")
    lines += overlap_lines(scan)
    scan = replace(scan, positions=scan.positions - (0 if scan.object is not None else scan.positions.min(axis=0)))
    if options.sweeps:
        scan = _reconstructed(scan, options, lines)
    lines += [f"left: {listed(found.left)}"] if found.left else []
    return Imported(scan, lines)


def _centred(
    path: Path, diffraction: NDArray[Any], bad: NDArray[np.bool_], kind: Kind, options: ImportOptions, lines: list[str]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    place = options.zero_frequency
    if place is None:
        some = diffraction[:: max(1, len(diffraction) // ENOUGH_PATTERNS)]
        values = np.where(bad | no_number(some), 0, some).clip(0)
        mean = (values.astype(np.float64) ** (2 if kind == "amplitude" else 1)).mean(axis=0)
        mean, side = median_filter(mean, 3, mode="wrap"), len(mean)  # removes hot pixels
        quarter = slice(side // 4, side - side // 4)
        total = mean.sum() or 1.0
        if not values.any():
            raise DataError(
                f"{path}: all {len(diffraction)} patterns are zero: name others with --map diffraction=NAME"
            )
        shares = {
            "centre": mean[quarter, quarter].sum() / total,
            "corner": np.fft.fftshift(mean)[quarter, quarter].sum() / total,
        }
        place = "centre" if shares["centre"] >= shares["corner"] else "corner"
        lines.append(
            f"checked: the zero frequency is at the {place}, {shares[place]:.0%} of the mean pattern lies around it"
        )
        if abs(shares["centre"] - shares["corner"]) < 0.1:
            raise DataError(
                f"{path}: the zero frequency is neither at the centre nor at the corner: give --zero-frequency"
            )
        lines += _off_centre(np.fft.fftshift(mean) if place == "corner" else mean)
    if place == "corner":
        return np.fft.fftshift(diffraction, axes=(1, 2)), np.fft.fftshift(bad)
    return diffraction, bad


def _off_centre(mean: NDArray[np.float64]) -> Iterator[str]:
    """Report a mean pattern (M, M) whose centre of mass is far from its centre."""
    offsets = np.arange(len(mean)) - len(mean) // 2
    down, right = (float((mean.sum(axis=axis) * offsets).sum() / mean.sum()) for axis in (1, 0))
    if max(abs(down), abs(right)) > OFF_CENTRE * len(mean):
        yield (
            f"checked: the mean pattern's centre of mass lies {down:+.1f} rows and {right:+.1f} columns off the zero "
            "frequency: cut the patterns around the beam, or else the probe gets a phase ramp"
        )


def _offset(patterns: NDArray[np.float32], mask: NDArray[np.bool_], kind: Kind) -> Iterator[str]:
    """Report an offset below all values, which would be taken for light."""
    some = patterns[:: max(1, len(patterns) // ENOUGH_PATTERNS)][:, mask]
    if not some.size:
        return
    least, share = offset_share(some**2 if kind == "amplitude" else some)
    if share > OFFSET:
        what = "counts" if kind == "counts" else "of intensity"
        yield (
            f"checked: nearly all pixels have at least {least:.3g} {what} in every pattern, {share:.0%} of what was "
            "measured: if that is an offset of the detector or a background, subtract it and import the scan again"
        )


@np.errstate(over="ignore")  # what float32 does not hold is refused afterwards
def _without_defects(
    path: Path, diffraction: NDArray[Any], bad: NDArray[np.bool_], lines: list[str]
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Leave out empty patterns, and set invalid pixels to 0; return also which pixels are valid and patterns kept."""
    defects = find_defects(diffraction, bad)
    if defects.empty.all():
        raise DataError(f"{path}: all {len(diffraction)} patterns are zero: name others with --map diffraction=NAME")
    lines += _of_defects(defects, bad)
    mask = ~(bad | defects.bad)
    patterns = np.where(mask, diffraction[~defects.empty], 0).astype(np.float32)
    if negative := int((patterns < 0).sum()):
        lines.append(f"set {negative} negative values to 0, which background subtraction leaves")
        patterns = patterns.clip(0)
    return patterns, mask, ~defects.empty


def _of_defects(defects: Defects, bad: NDArray[np.bool_]) -> Iterator[str]:
    counts = {
        "known to be bad": bad,
        "no number, saturated or always negative": defects.invalid,
        "dead": defects.dead,
        "hot": defects.hot,
    }
    pixels = ", ".join(f"{int(where.sum())} {what}" for what, where in counts.items())
    yield f"checked: pixels masked in all patterns: {pixels}; empty patterns, left out: {defects.empty.sum()}"


def _cropped(
    path: Path,
    patterns: NDArray[np.float32],
    mask: NDArray[np.bool_],
    probe: NDArray[np.complex64],
    options: ImportOptions,
    lines: list[str],
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.complex64], float]:
    """Crop patterns, mask and probe to one size; return also the factor by which positions are scaled."""
    side = patterns.shape[-1]
    crop = side if options.crop is None else options.crop
    if side % 2 and options.crop is None:
        raise DataError(f"{path}: patterns are {side} x {side}, expected an even side: give --crop {side - 1}")
    if not 4 <= crop <= side or crop % 2:
        raise DataError(f"--crop {crop}: expected an even number from 4 to {side}, the side of the patterns")
    zoom = 1.0
    if crop < side:
        inner = central(crop, side)
        kept = patterns[:, inner, inner].sum(dtype=np.float64) / patterns.sum(dtype=np.float64)
        lines.append(f"cropped to the central {crop} of {side} pixels, {kept:.1%} of what was measured")
        if probe.shape[0] == side:
            probe, zoom = crop_probe(probe, crop), crop / side
        else:
            lines.append("assumed: the probe is already that of the cropped patterns, and so are positions in pixels")
        patterns, mask = np.ascontiguousarray(patterns[:, inner, inner]), mask[inner, inner]
    if probe.shape[0] != crop:
        larger = "larger" if crop > probe.shape[0] else "smaller"
        raise DataError(
            f"{path}: patterns are {crop} x {crop}, {larger} than the probe of {probe.shape[0]} x {probe.shape[0]}: "
            + (f"give --crop {probe.shape[0]}, or " if crop > probe.shape[0] else "give ")
            + "a probe of their size with --map probe=FILE:NAME"
        )
    if not mask.any():
        raise DataError(f"{path}: the mask leaves no pixel: name another with --map mask=NAME (or bad=NAME)")
    return patterns, mask, probe, zoom


def _reconstructed(scan: Scan, options: ImportOptions, lines: list[str]) -> Scan:
    found = epie(scan.intensity, scan.probe, scan.positions, scan.mask, options.sweeps)
    lines.append(
        f"reconstructed: {options.sweeps} sweeps of ePIE, amplitude error {found.errors[0]:.4f} in the first, "
        f"{found.errors[-1]:.4f} in the last"
    )
    sources = dict(scan.sources)
    if scan.object is None:
        sources["object"] = f"ePIE, {options.sweeps} sweeps, amplitude error {found.errors[-1]:.4f}"
        scan = replace(scan, object=found.object)
    if not options.keep_probe and scan.object is found.object:
        sources["probe"] += f", refined in {options.sweeps} sweeps of ePIE"
        scan = replace(scan, probe=found.probe)
        lines.append("took the probe that ePIE refined (--keep-probe keeps the file's)")
    return replace(scan, sources=sources)


def _sources(path: Path, found: Found) -> dict[str, str]:
    here = {name: place for name, place in found.sources.items() if name not in found.elsewhere}
    sources = found.sources | {name: f"{path.name}: {place}" for name, place in here.items()}
    if "positions" not in sources:
        sources["positions"] = f"{sources['rows']}, {found.sources['columns']}"
    known = [sources.pop(name) for name in ("mask", "bad") if name in sources]
    sources = {name: source for name, source in sources.items() if name not in ("rows", "columns")}
    return {**sources, "mask": ", ".join([*known, "checks at import"])}


def _metres(pixel_size: float | None) -> str:
    return "unknown size" if pixel_size is None else f"{pixel_size:.4g} m"
