"""Find the orientation of a scan's positions: the one of eight in which ePIE's error is lowest."""

from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from fnostab.ptychography.scans.epie import epie
from fnostab.ptychography.scans.resizing import central, crop_probe
from fnostab.ptychography.scans.scan_file import Scan

__all__ = ["ORIENTATIONS", "orient", "turned"]

Orientation = tuple[bool, int, int]  # whether rows and columns are swapped; the signs of both after that
ORIENTATIONS: dict[str, Orientation] = {
    f"{'-' if r < 0 else '+'}{'column' if swap else 'row'},{'-' if c < 0 else '+'}{'row' if swap else 'column'}": (
        swap,
        r,
        c,
    )
    for swap, r, c in product((False, True), (1, -1), (1, -1))
}
AS_GIVEN = next(iter(ORIENTATIONS))
TRIED_SIDE, TRIED_PATTERNS, TRIED_SWEEPS = 64, 300, 4  # of a scan, to find its orientation
CLEARLY = 0.95  # of the error as given: below it, another orientation is taken


def orient(scan: Scan) -> tuple[Scan, str]:
    """Turn positions into the orientation of the lowest error; as given, if none is clearly lower.

    Args:
        scan: of at least 4 patterns.

    Returns:
        The scan, and a line on what was found.
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
    """Positions (n, 2) as ``name`` of `ORIENTATIONS` has them, shape (n, 2)."""
    swap, rows, columns = ORIENTATIONS[name]
    return (positions[:, ::-1] if swap else positions) * (rows, columns)
