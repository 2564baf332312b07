"""Data set from a measured scan, split into areas that are at least one probe width apart.

The file's object, known or reconstructed at import, serves as the reference in place of a true object.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fnostab.errors import DataError
from fnostab.ptychography.data.grid_lines import SPLITS, GridLines, Split, SplitName
from fnostab.ptychography.physics.input_files import insist_on_sha256
from fnostab.ptychography.physics.probe import make_probe
from fnostab.ptychography.scans.epie import photons_per_intensity
from fnostab.ptychography.scans.resizing import central, crop_probe, resize_image
from fnostab.ptychography.scans.scan_file import probe_width, read_outline, read_scan
from fnostab.ptychography.settings import DataConfig

HELD_OUT = 0.2  # share of the scan's longer side for validation and test
LEAST_SPAN = 6  # minimum span in pixels of an area's positions, so that an SSIM window fits
LEAST_PATTERNS = 4
LEAST_OF_PROBE = 0.95  # minimum share of the probe's intensity within the smaller frame of binned patterns


def from_scan(config: DataConfig) -> GridLines:
    """Create the data set from the scan file ``config.path``: patterns of N x N pixels, split by area.

    Positions are fractional, in pixels of the object at the resolution of N-pixel patterns. ``objects`` is empty if
    the file has no object.

    Raises:
        DataError: the file can't be read, does not fit N, or is too small to be split.
    """
    path = _path(config)
    insist_on_sha256(path, "scan", config.sha256)
    scan = read_scan(path)
    side, N = scan.probe.shape[0], config.N
    probe, zoom = _probe_and_zoom(scan.probe, config)
    if config.fit == "crop":
        inner = central(N, side)
        intensity, mask = scan.intensity[:, inner, inner], scan.mask[inner, inner]
    else:
        factor = side // N
        mask = np.asarray(scan.mask.reshape(N, factor, N, factor).all(axis=(1, 3)))
        intensity = scan.intensity.reshape(-1, N, factor, N, factor).sum(axis=(2, 4)) * mask
    positions = scan.positions * zoom if config.fit == "crop" else scan.positions + central(N, side).start
    image = None if scan.object is None else resize_image(scan.object, zoom)

    indices = areas(scan.positions, probe_width(scan.probe), LEAST_SPAN / zoom, path)
    of_training = intensity[indices["train"]]
    if not of_training[:, mask].any():
        raise DataError(f"{path}: no training pattern has a photon on {N} x {N} pixels: set data.N or data.fit=bin")
    scale = photons_per_intensity(of_training, probe, mask)
    amplitudes = torch.from_numpy(np.sqrt(intensity / scale).astype(np.float32))[:, None]
    corners = torch.from_numpy(positions)
    objects = torch.empty(0, 1, 1, dtype=torch.complex64) if image is None else torch.from_numpy(image)[None]

    def split(name: SplitName) -> Split:
        mine = torch.from_numpy(indices[name])
        return Split(amplitudes[mine], corners[mine], torch.zeros(len(mine), dtype=torch.int64), objects)

    train = split("train")
    seen = train.amplitudes[..., torch.from_numpy(mask)].double()
    return GridLines(
        probe=torch.from_numpy(probe),
        photon_scale=scale,
        mean_amplitude=float(seen.mean()),
        mean_count=scale * float(seen.square().mean()),
        train=train,
        validation=split("validation"),
        test=split("test"),
        mask=torch.from_numpy(mask),
        noise_known=scan.kind == "counts",
    )


def probe_of(config: DataConfig) -> Tensor:
    """Probe of a simulated or measured data set, complex64 of shape (N, N) with a peak modulus of 1.

    Raises:
        DataError: the probe's file can't be used.
    """
    if config.path is None:
        return make_probe(config.probe, config.N)
    return torch.from_numpy(_probe_and_zoom(read_outline(_path(config)).probe, config)[0])


def pattern_counts(config: DataConfig) -> dict[SplitName, int]:
    """Number of patterns in each split of a measured scan."""
    outline = read_outline(_path(config))
    _, zoom = _probe_and_zoom(outline.probe, config)
    found = areas(outline.positions, probe_width(outline.probe), LEAST_SPAN / zoom, _path(config))
    return {name: len(mine) for name, mine in found.items()}


def areas(
    positions: NDArray[np.float64], gap: float, least_span: float = LEAST_SPAN, path: str = ""
) -> dict[SplitName, NDArray[np.int64]]:
    """Split a scan into training, validation and test areas; patterns in the gaps between them are left out.

    A strip at the end of the scan's longer side is held out; one half of it is for validation, the other for test.

    Args:
        positions: scan positions in pixels, shape (n, 2).
        gap: distance between areas along an axis, in pixels.
        least_span: minimum span of an area's positions in both directions, in pixels.
        path: path of the scan, for error messages.

    Returns:
        Pattern indices of each split.

    Raises:
        DataError: an area would be too small.
    """
    offsets = positions - positions.min(axis=0)
    extent = offsets.max(axis=0)
    along = int(extent.argmax())
    length, width = extent[along], extent[1 - along]
    begin = (1 - HELD_OUT) * length
    held, across = offsets[:, along] >= begin, offsets[:, 1 - along]
    chosen: dict[SplitName, NDArray[np.bool_]] = {
        "train": offsets[:, along] <= begin - gap,
        "validation": held & (across <= (width - gap) / 2),
        "test": held & (across >= (width + gap) / 2),
    }
    for name in SPLITS:
        spans = np.ptp(positions[chosen[name]], axis=0) if chosen[name].any() else np.zeros(2)
        if chosen[name].sum() < LEAST_PATTERNS or (spans < least_span).any():
            raise DataError(
                f"{path}: positions span {extent[0]:.0f} x {extent[1]:.0f} pixels, which leaves no {name} area with "
                f"gaps of {gap:.0f}, the probe's width: take a larger scan, or raise data.N"
            )
    return {name: np.flatnonzero(chosen[name]) for name in SPLITS}


def _path(config: DataConfig) -> str:
    return config.path or ""


def _probe_and_zoom(probe: NDArray[np.complex64], config: DataConfig) -> tuple[NDArray[np.complex64], float]:
    """Probe on N pixels with a peak modulus of 1, and the factor by which positions are scaled."""
    side, N = probe.shape[0], config.N
    if side < N or (config.fit == "bin" and side % N):
        accepted = f"at most {side}" if config.fit == "crop" else f"a whole part of {side}"
        raise DataError(f"{config.path} has patterns of {side} x {side}: data.N={N}, expected {accepted}")
    if config.fit == "crop":
        smaller, zoom = crop_probe(probe, N), N / side
    else:
        inner = central(N, side)
        smaller, zoom = probe[inner, inner], 1.0
        share = float((np.abs(smaller) ** 2).sum() / (np.abs(probe) ** 2).sum())
        if share < LEAST_OF_PROBE:
            raise DataError(
                f"{config.path}: binned to data.N={N}, the frame holds {share:.1%} of the probe, expected at least "
                f"{LEAST_OF_PROBE:.0%}: raise data.N, or set data.fit=crop"
            )
        # Binning shifts the zero frequency from the centre of its bin; a phase ramp compensates for it.
        factor = side // N
        shift = factor * (N // 2) + (factor - 1) / 2 - side // 2  # of the bin's centre, in pixels of the detector
        turns = shift * (np.arange(N) - N // 2) / side
        ramp = np.exp(-2j * math.pi * turns)
        smaller = smaller * ramp[:, None] * ramp
    return np.asarray(smaller / np.abs(smaller).max(), dtype=np.complex64), zoom
