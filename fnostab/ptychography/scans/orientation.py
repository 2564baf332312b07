"""Find the orientation of a scan's positions, the one of eight with the lowest ePIE error."""

from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from fnostab.ptychography.scans.epie import epie
from fnostab.ptychography.scans.resizing import central, crop_probe
from fnostab.ptychography.scans.scan_file import Scan

Orientation = tuple[bool, int, int]  # whether rows and columns are swapped, then the sign of each
ORIENTATIONS: dict[str, Orientation] = {
    f"{'-' if r < 0 else '+'}{'column' if swap else 'row'},{'-' if c < 0 else '+'}{'row' if swap else 'column'}": (
        swap,
        r,
        c,
    )
    for swap, r, c in product((False, True), (1, -1), (1, -1))
}
AS_GIVEN = next(iter(ORIENTATIONS))
TRIED_SIDE, TRIED_PATTERNS, TRIED_SWEEPS = 64, 300, 4  # size of the test reconstructions
CLEARLY = 0.95  # ratio of errors below which one orientation is clearly better than another


def orient(scan: Scan) -> tuple[Scan, str]:
    """Turn positions into the orientation with the lowest error, or keep them if no error is clearly lower.

    Args:
        scan: scan with at least 4 patterns.

    Returns:
        The scan, and a line for the report.
    """
    side = min(scan.probe.shape[0], TRIED_SIDE)
    inner = central(side, scan.probe.shape[0])
    centre = np.median(scan.positions, axis=0)
    nearest = np.argsort(((scan.positions - centre) ** 2).sum(axis=1))[:TRIED_PATTERNS]
    intensity, mask = scan.intensity[nearest][:, inner, inner], scan.mask[inner, inner]
    probe, positions = crop_probe(scan.probe, side), scan.positions[nearest] * side / scan.probe.shape[0]
    errors = {}
    for name in ORIENTATIONS:
        tried = turned(positions, name)
        errors[name] = epie(intensity, probe, tried - tried.min(axis=0), mask, TRIED_SWEEPS).errors[-1]
    best = min(errors, key=errors.__getitem__)
    taken = best if errors[best] < CLEARLY * errors[AS_GIVEN] else AS_GIVEN
    others = min(error for name, error in errors.items() if name != taken)
    clear = errors[taken] < CLEARLY * others
    line = (
        f"checked: orientation of the positions is {taken}, error {errors[taken]:.3f} after {TRIED_SWEEPS} sweeps, "
        f"of the others at least {others:.3f}{'' if clear else ', which does not tell them apart'} (--orientation)"
    )
    return replace(scan, positions=turned(scan.positions, taken)), line


def turned(positions: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """Turn positions (n, 2) into the orientation ``name`` of `ORIENTATIONS`."""
    swap, rows, columns = ORIENTATIONS[name]
    return (positions[:, ::-1] if swap else positions) * (rows, columns)
