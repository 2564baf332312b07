"""Check the object that a file gives, which serves as the reference, against its positions and patterns."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fnostab.ptychography.scans.arrays import shape_text
from fnostab.ptychography.scans.epie import amplitude_error
from fnostab.ptychography.scans.resizing import resize_image
from fnostab.ptychography.scans.scan_file import Scan

ENOUGH_PATTERNS = 200  # patterns that the object has to explain, approximately


def with_object(scan: Scan, given: NDArray[Any], zoom: float, of: str, lines: list[str]) -> Scan:
    """Add the object of a file to a scan, if it is one of these positions and patterns; else report why it is left.

    Args:
        scan: scan without an object, with positions as in the file.
        given: the object, shape (H, W).
        zoom: factor by which the patterns were cropped.
        of: point of a patch that positions refer to, ``corner`` or ``centre``.
        lines: lines of the report, to which one is appended.
    """
    side = scan.probe.shape[0]
    corners = scan.positions - (side // 2 if of == "centre" else 0)
    if given.ndim != 2 or not np.iscomplexobj(given) or not np.isfinite(given).all():
        lines.append(f"left: object, {shape_text(given)}, which is not a finite complex image")
        return scan
    given = resize_image(given, zoom)
    if corners.min() < 0 or (corners.max(axis=0) + side + 1 > given.shape).any():
        lines.append(f"left: object, {shape_text(given)}, since some positions lie outside it")
        return scan
    some = slice(None, None, max(1, len(corners) // ENOUGH_PATTERNS))
    error, of_constant = (
        amplitude_error(scan.intensity[some], scan.probe, corners[some], scan.mask, image)
        for image in (given, np.ones_like(given))
    )
    if not error < of_constant:
        lines.append(
            f"left: object, {shape_text(given)}, since it does not explain the patterns: amplitude error {error:.3f}, "
            f"of a constant one {of_constant:.3f}"
        )
        return scan
    lines.append(
        f"checked: the object explains the patterns, amplitude error {error:.3f}, of a constant one {of_constant:.3f}"
    )
    return replace(scan, positions=corners, object=given.astype(np.complex64))
