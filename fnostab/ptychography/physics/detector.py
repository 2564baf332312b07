"""A photon-counting detector: Poisson statistics at a given photon budget.

Counts are float64: they pass 2**24, where float32 stops to hold every integer, at 1e9 photons a
pattern. Amplitudes are float32; their rounding, 6e-8, is far below the photon noise.
"""

import torch
from torch import Tensor

__all__ = ["amplitude_of", "detect", "photon_scale"]


def photon_scale(intensity: Tensor, nphotons: float) -> float:
    """Photons per unit of intensity, so that a pattern holds ``nphotons`` photons on average.

    Args:
        intensity: noise-free, shape (n, ..., N, N).
        nphotons: mean over the patterns of the photons in all pixels of one.
    """
    return float(nphotons / intensity.sum(dim=(-2, -1), dtype=torch.float64).mean())


def detect(intensity: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """Photon counts, float64 of the same shape: Poisson with the mean ``scale * intensity``."""
    return torch.poisson(intensity.double() * scale, generator=generator)


def amplitude_of(counts: Tensor, scale: float) -> Tensor:
    """Measured amplitude, float32 of the same shape: sqrt(counts / scale)."""
    return (counts / scale).sqrt().float()
