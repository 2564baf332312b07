"""Geometry of a scan: near or far field, size of an object pixel, distance and overlap of neighbouring patches."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from fnostab.errors import DataError
from fnostab.ptychography.scans.epie import photons_per_intensity
from fnostab.ptychography.scans.layouts import Found
from fnostab.ptychography.scans.scan_file import Scan, probe_width

NEAR_FIELD = 1.0  # Fresnel number above which the far-field approximation is invalid
LITTLE_OVERLAP = 0.5


def refuse_near_field(path: Path, found: Found, probe: NDArray[np.complex64] | None) -> None:
    """Refuse a Fresnel number width^2 / (wavelength x distance) above 1; width of the probe, or else of the frame.

    Raises:
        DataError: the scan is in the near field.
    """
    if not (found.wavelength and found.distance and found.detector_pixel):
        return
    share = 1.0 if probe is None else probe_width(probe) / probe.shape[0]
    number = share**2 * found.wavelength * found.distance / found.detector_pixel**2
    if number > NEAR_FIELD:
        raise DataError(
            f"{path} is in the near field, its Fresnel number is {number:.2g} at a wavelength of "
            f"{found.wavelength:.2g} m and a distance of {found.distance:.2g} m: only the far field is supported; add "
            "--far-field if the patterns are far-field ones all the same, and --pixel-size if those lengths are wrong"
        )


def refuse_far_apart(path: Path, positions: NDArray[np.float64], side: int) -> None:
    """Refuse positions (n, 2) whose patches of ``side`` pixels do not touch: they may be lengths, or one may be wrong.

    Raises:
        DataError: the positions are too far apart.
    """
    nearest, span = _nearest(positions), np.ptp(positions, axis=0).max()
    if nearest > side or span > side * len(positions):
        raise DataError(
            f"{path}: positions span {span:.3g} pixels and neighbours are {nearest:.3g} apart, too far for patterns of "
            f"{side} pixels: give their unit with --unit and --pixel-size, or name others with --map positions=NAME"
        )


def overlap_lines(scan: Scan) -> Iterator[str]:
    """Report in lines how far neighbouring patches overlap, and the mean intensity of a pattern."""
    width = probe_width(scan.probe)
    nearest = _nearest(scan.positions)
    overlap = 1 - nearest / width
    yield (
        f"checked: the probe is {width:.0f} pixels wide, neighbours are {nearest:.1f} apart: {overlap:.0%} overlap"
        + ("" if overlap >= LITTLE_OVERLAP else ", too little for a reconstruction that is well determined")
    )
    scale = photons_per_intensity(scan.intensity, scan.probe, scan.mask)
    unit = "counts" if scan.kind == "counts" else "units"
    total = scan.intensity.sum(axis=(1, 2)).mean()
    yield f"checked: {total:.4g} {unit} a pattern, {scale:.3g} times the probe's scale, which training divides out"


def far_field_pixel(found: Found, side: int) -> float | None:
    """Size in metres of an object pixel, for a probe of ``side`` pixels: wavelength x distance / (side x pixel)."""
    if not (found.wavelength and found.distance and found.detector_pixel):
        return None
    return found.wavelength * found.distance / (side * found.detector_pixel)


def _nearest(positions: NDArray[np.float64]) -> float:
    """Median distance of a position (n, 2) to its nearest neighbour at another place."""
    places = np.unique(positions.round(2), axis=0)
    distances, _ = cKDTree(places).query(places, k=2)
    return float(np.median(distances[:, 1]))
