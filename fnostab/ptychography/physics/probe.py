"""Probe: the wave that illuminates the object.

The idealised probe is a disk with a smooth edge and a quadratic phase, as in a slightly defocused beam. The curvature
matters: with a flat symmetric disk an object and its twin (inverted and conjugated) have the same diffraction pattern,
and training cannot distinguish them.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fnostab.errors import DataError
from fnostab.ptychography.physics.input_files import insist_on_sha256, read_npz
from fnostab.ptychography.settings import ProbeConfig

EDGE_WIDTH = 1 / 64  # standard deviation of the disk's edge as a share of N: one pixel for N = 64


def make_probe(config: ProbeConfig, N: int) -> Tensor:
    """Create or load the probe of ``config``, complex64 of shape (N, N), scaled to a peak modulus of 1.

    The scale of a measured probe is not used: the photon budget sets the dose.

    Raises:
        DataError: the measured probe can't be used, see `load_probe`.
    """
    if config.path is None:
        return disk_probe(N, config.radius, config.curvature_rad)
    probe = load_probe(config.path, N, config.sha256)
    return probe / probe.abs().max()


def disk_probe(N: int, radius: float, curvature_rad: float) -> Tensor:
    """Create a smoothed disk with a quadratic phase, complex64 of shape (N, N), with a modulus of at most 1.

    Args:
        N: pixels along a side.
        radius: radius of the disk, at which the modulus is 1/2, as a share of N.
        curvature_rad: phase at the disk's edge relative to its centre, in radians.
    """
    x = torch.arange(N, dtype=torch.float64) - (N - 1) / 2
    distance = torch.hypot(x[:, None], x) / N
    modulus = torch.special.ndtr((radius - distance) / EDGE_WIDTH)
    phase = curvature_rad * (distance / radius) ** 2
    return torch.polar(modulus, phase).to(torch.complex64)


def load_probe(path: str | Path, N: int, sha256: str | None = None) -> Tensor:
    """Load a measured probe from the array ``probe`` of an NPZ file, complex64 of shape (N, N).

    Args:
        path: path of the file, which is never unpickled.
        N: required number of pixels along a side.
        sha256: expected SHA-256 of the file as hexadecimal digits; None skips the check.

    Raises:
        DataError: the file is missing, is not an NPZ file or has another digest, or its probe is not a finite, complex,
            non-zero array of shape (N, N).
    """
    insist_on_sha256(path, "probe", sha256)
    probe = read_npz(path, "probe")
    if probe.shape != (N, N):
        raise DataError(f"probe in {path} has shape {probe.shape}, expected ({N}, {N}): set data.N or crop the probe")
    if not np.iscomplexobj(probe):
        raise DataError(f"probe in {path} is {probe.dtype}, expected a complex dtype: save amplitude * exp(1j * phase)")
    narrow = probe.astype(np.complex64)
    if not np.isfinite(narrow).all():
        bad = int((~np.isfinite(narrow)).sum())
        raise DataError(f"probe in {path} has {bad} values that are not finite in complex64: repair or rescale it")
    if not narrow.any():
        raise DataError(f"probe in {path} is zero everywhere: it illuminates nothing; give another one")
    return torch.from_numpy(narrow)
