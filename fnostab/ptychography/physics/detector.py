"""Photon-counting detector: Poisson statistics for a given photon budget.

Counts are float64: with 1e9 photons per pattern they exceed 2**24, above which float32 does not represent all
integers. Amplitudes are float32; their rounding error, 6e-8, is far below the photon noise.
"""

import torch
from torch import Tensor


def photon_scale(intensity: Tensor, nphotons: float) -> float:
    """Photons per unit of intensity with which patterns have ``nphotons`` photons on average.

    Args:
        intensity: noise-free intensity, shape (n, ..., N, N).
        nphotons: mean number of photons per pattern.
    """
    return float(nphotons / intensity.sum(dim=(-2, -1), dtype=torch.float64).mean())


def detect(intensity: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """Draw Poisson photon counts with mean ``scale * intensity``, float64 of the same shape."""
    return torch.poisson(intensity.double() * scale, generator=generator)


def amplitude_of(counts: Tensor, scale: float) -> Tensor:
    """Convert photon counts to amplitudes sqrt(counts / scale), float32 of the same shape."""
    return (counts / scale).sqrt().float()
