"""Check the arrays of an imported scan and convert them to a standard form.

Each function appends a line to ``lines`` for every assumption it makes. Unusable arrays raise DataError, with the
command-line option that solves the problem.
"""

from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fnostab.errors import DataError
from fnostab.ptychography.scans.layouts import IN_METRES, Found, Unit
from fnostab.ptychography.scans.scan_file import Kind
from fnostab.record.settings import shown

LEAST, MOST = 1e-15, 1e15  # range of amplitudes whose squares and sums fit into float32
MOST_BAD = 0.9  # share of bad pixels above which a mask is more likely to have the opposite meaning
FLAT = 0.01  # ratio of spans below which the smallest of three coordinates is the height
AT_CORNER = 0.8  # share of intensity outside the middle half of the frame above which a probe is centred at a corner


def probe_of(path: Path, found: Found, lines: list[str]) -> NDArray[np.complex64] | None:
    """Probe with its centre at the frame's centre, the first of several modes; complex64 (M, M), None if missing."""
    if "probe" not in found.arrays:
        return None
    array = complex_of(found, "probe", lines)
    if array.ndim > 2 and array.shape[-1] == 1:  # (M, M, 1)
        array = array[..., 0]
    if array.ndim < 2 or array.shape[-1] != array.shape[-2] or not array.any():
        raise DataError(
            f"{path}: probe is {shape_text(array)}, expected a square one that is not zero: --map probe=NAME"
        )
    if not np.iscomplexobj(array):
        raise DataError(f"{path}: probe is {array.dtype}, expected a complex one: --map probe=NAME or probe=FILE:NAME")
    if not np.isfinite(array).all():
        raise DataError(f"{path}: probe has values that are not finite: repair it, or give --map probe=FILE:NAME")
    modes = array.reshape(-1, *array.shape[-2:])
    if not LEAST < (peak := float(np.abs(modes[0]).max())) < MOST:
        raise DataError(
            f"{path}: the probe's modulus is at most {peak:.3g}, expected {LEAST:g} to {MOST:g}: rescale it, its scale "
            "has no effect"
        )
    power = (np.abs(modes) ** 2).sum(axis=(1, 2))
    if len(modes) > 1:
        lines.append(f"took the first of {len(modes)} modes of the probe, {power[0] / power.sum():.1%} of its power")
    probe = np.asarray(modes[0], dtype=np.complex64)
    quarter = slice(len(probe) // 4, len(probe) - len(probe) // 4)
    outer = 1 - (np.abs(probe[quarter, quarter]) ** 2).sum() / (np.abs(probe) ** 2).sum()
    if outer > AT_CORNER:
        lines.append(
            f"checked: the probe has its centre at the corner ({outer:.0%} of its power lies outside the middle half): "
            "moved to the centre"
        )
        return np.fft.fftshift(probe)
    return probe


def complex_of(found: Found, name: str, lines: list[str]) -> NDArray[Any]:
    """Array ``name`` as complex numbers if its first or last axis, of length 2, has real and imaginary parts."""
    array = found.arrays[name]
    if np.iscomplexobj(array) or array.ndim < 3:
        return array
    axis = -1 if array.shape[-1] == 2 else 0
    if array.shape[axis] != 2:
        return array
    if axis == 0 and array.ndim > 3 and array.shape[1] == 2:
        raise DataError(
            f"{name} is {shape_text(array)}: either of its first two axes may hold real and imaginary parts; save it "
            "as complex numbers"
        )
    lines.append(f"assumed: {name} has its real and imaginary parts along its {'last' if axis else 'first'} axis")
    real, imaginary = np.moveaxis(array, axis, 0)
    return np.asarray(real + 1j * imaginary)


def patterns_of(path: Path, found: Found, lines: list[str]) -> NDArray[Any]:
    """Diffraction patterns, shape (n, M, M)."""
    if "diffraction" not in found.arrays:
        raise DataError(f"{path} has no diffraction patterns: name them with --map diffraction=NAME")
    array = found.arrays["diffraction"]
    while array.ndim > 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim > 3 and array.shape[-1] == 1:  # (n, M, M, 1)
        array = array[..., 0]
    if array.ndim == 4:
        lines.append(
            f"assumed: patterns of the {array.shape[0]} x {array.shape[1]} raster are in the order of positions"
        )
        array = array.reshape(-1, *array.shape[2:])
    if array.ndim != 3 or not array.size or np.iscomplexobj(array):
        raise DataError(f"{path}: diffraction is {shape_text(array)}, expected real (n, M, M): --map diffraction=NAME")
    if array.shape[0] == array.shape[1] != array.shape[2]:
        lines.append("assumed: diffraction is (M, M, n), as in older files of PtychoPINN")
        array = np.moveaxis(array, -1, 0)
    if array.shape[1] != array.shape[2]:
        raise DataError(
            f"{path}: patterns are {array.shape[1]} x {array.shape[2]}, expected square ones: "
            "cut them around the zero frequency"
        )
    return array


def positions_of(
    path: Path, found: Found, unit: Unit | None, n: int, lines: list[str]
) -> tuple[NDArray[np.float64], bool]:
    """Positions (row, column) of n patterns in pixels or metres, shape (n, 2), and whether they are in metres."""
    arrays = found.arrays
    if "positions" in arrays:
        array = arrays["positions"]
    elif "rows" in arrays and "columns" in arrays:
        rows, columns = arrays["rows"].ravel(), arrays["columns"].ravel()
        if rows.size * columns.size == n != rows.size:
            lines.append(f"assumed: {rows.size} rows and {columns.size} columns of a raster, one row after the other")
            rows, columns = np.repeat(rows, columns.size), np.tile(columns, rows.size)
        if rows.size != columns.size:
            raise DataError(
                f"{path} has {rows.size} rows and {columns.size} columns of positions, expected {n} of each, or their "
                f"product to be {n}: name others with --map"
            )
        array = np.stack([rows, columns], axis=1)
    else:
        raise DataError(
            f"{path} has no positions: name them with --map positions=NAME, (n, 2) of row and column, or with "
            "--map rows=NAME --map columns=NAME"
        )
    array = array.reshape(-1, array.shape[-1]) if array.ndim > 2 else array
    if array.ndim == 2 and array.shape[0] == 2 != array.shape[1]:
        lines.append("assumed: positions are (2, n)")
        array = array.T
    if array.ndim == 2 and len(lost := np.flatnonzero(~np.isfinite(array).all(axis=1))):
        raise DataError(
            f"{path}: {len(lost)} of {len(array)} positions are not finite, the first is number {lost[0]}: repair them "
            "or leave them out together with their patterns, or name others with --map positions=NAME"
        )
    if array.size and array.ndim == 2 and array.shape[1] == 3 and not np.iscomplexobj(array):
        spans = np.ptp(array.astype(np.float64), axis=0)
        flat, second, _ = np.argsort(spans)
        if spans[flat] < FLAT * spans[second]:
            lines.append(
                f"assumed: coordinate {flat + 1} of 3 of the positions, nearly the same for all, is the height"
            )
            array = np.delete(array, flat, axis=1)
    if array.ndim != 2 or array.shape[1] != 2 or np.iscomplexobj(array):
        raise DataError(f"{path}: positions are {shape_text(array)}, expected real (n, 2): --map positions=NAME")
    if len(array) != n:
        raise DataError(
            f"{path} has {n} patterns but {len(array)} positions: leave out those without a partner, or name others "
            "with --map"
        )
    if unit is None and found.unit_text:
        if found.unit is None:
            raise DataError(f"{path}: positions are in {shown(found.unit_text)}, which is not known: give --unit")
        lines.append(f"assumed: positions are in {found.unit}s, as their attribute units says (--unit)")
    unit = unit or found.unit or "pixel"
    return array.astype(np.float64) * IN_METRES.get(unit, 1.0), unit in IN_METRES


def insist_on_range(path: Path, kind: Kind, patterns: NDArray[np.float32]) -> None:
    """Refuse patterns whose intensity float32 does not hold."""
    largest, power = float(patterns.max()), 1 if kind == "amplitude" else 2
    if not LEAST**power < largest < MOST**power:
        raise DataError(
            f"{path}: the largest value of a pattern is {largest:.3g}, expected {LEAST**power:g} to {MOST**power:g} "
            f"for {kind}: rescale the patterns"
        )


def kind_of(path: Path, found: Found, given: Kind | None, diffraction: NDArray[Any], lines: list[str]) -> Kind:
    """Kind of the patterns: as ``given``, else from the layout, else inferred from the values."""
    sample = diffraction[:: max(1, diffraction.size // 2_000_000)]  # the first patterns may be empty
    sample = sample[np.isfinite(sample)]
    whole = bool((sample == np.rint(sample)).all())
    kind = given or found.kind
    if kind is None and found.layout.endswith("--map"):
        raise DataError(f"{path} does not say what the patterns are: give --kind counts, intensity or amplitude")
    if kind is None:
        kind = "counts" if whole else "intensity"
        lines.append(f"assumed: patterns are {kind}, since they are {'' if whole else 'not '}whole numbers (--kind)")
    elif given is None:
        lines.append(f"assumed: patterns are of kind {kind}, as usual in this layout (--kind)")
    if kind == "counts" and not whole:
        raise DataError(
            f"{path}: patterns are not whole numbers, so they are not counts: give --kind intensity or amplitude"
        )
    return kind


def bad_pixels_of(
    path: Path, found: Found, mapped: Container[str], shape: tuple[int, ...], lines: list[str]
) -> NDArray[np.bool_]:
    """Pixels that the file marks as bad, bool of shape (M, M); ``mapped`` are the names that --map gave."""
    bad = np.zeros(shape[1:], bool)
    for name in ("mask", "bad"):
        if name in found.arrays:
            array = np.squeeze(found.arrays[name])
            array = array.reshape(-1, *array.shape[-2:]) if array.ndim == 4 else array  # of a raster
            if array.shape not in (shape, shape[1:]):
                raise DataError(
                    f"{path}: {name} is {shape_text(array)}, expected {shape[1:]}: name another with --map {name}=NAME"
                )
            off = ((array == 0) | np.isnan(array)) if name == "mask" else (array != 0)
            if array.ndim == 3:
                lines.append(f"assumed: a pixel counts if {name} counts it in all patterns")
                off = off.any(axis=0)
            bad |= off
    if bad.all():
        raise DataError(f"{path}: the mask leaves no pixel: name another with --map mask=NAME (or bad=NAME)")
    if bad.mean() > MOST_BAD and "mask" not in mapped and "bad" not in mapped:
        raise DataError(
            f"{path}: the mask leaves {int((~bad).sum())} of {bad.size} pixels: name it with --map mask=NAME if its "
            "nonzero pixels measure, with --map bad=NAME if they do not"
        )
    return bad


def shape_text(array: NDArray[Any]) -> str:
    """Shape and dtype as text, such as ``(516, 128, 128) float32``."""
    return f"{array.shape} {array.dtype}"
