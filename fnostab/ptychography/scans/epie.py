"""Reconstruct object and probe by ePIE.

Maiden and Rodenburg 2009, "An improved ptychographical phase retrieval algorithm for diffractive imaging". Both step
sizes are 1 in the first half of the sweeps and fall to 0 in the second: full steps to the end follow the photon noise
of each pattern. The probe is shifted by the fraction of a pixel that each position has.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fft2, ifft2, ifftshift

__all__ = ["Reconstruction", "epie", "photons_per_intensity"]

TINY = np.float32(1e-12)


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A reconstruction.

    Attributes:
        object: complex64, shape (H, W); pixel (0, 0) is position (0, 0).
        probe: refined, complex64, shape (M, M).
        errors: sum |a - A| / sum A of the amplitudes in each sweep, before each pattern's update.
    """

    object: NDArray[np.complex64]
    probe: NDArray[np.complex64]
    errors: tuple[float, ...]


def photons_per_intensity(
    intensity: NDArray[np.float32], probe: NDArray[np.complex64], mask: NDArray[np.bool_]
) -> float:
    """Scale between measured intensity (n, M, M) and a probe (M, M): mean sum of patterns over that of the probe's.

    Both sums are over the mask (M, M), zero frequency in its centre.
    """
    empty = np.abs(np.fft.fftshift(fft2(probe, norm="ortho"))) ** 2
    return float(intensity[:, mask].sum(axis=1, dtype=np.float64).mean() / empty[mask].sum(dtype=np.float64))


def epie(
    intensity: NDArray[np.float32],
    probe: NDArray[np.complex64],
    positions: NDArray[np.float64],
    mask: NDArray[np.bool_],
    sweeps: int,
    *,
    seed: int = 0,
) -> Reconstruction:
    """Reconstruct the object from an even start of 1, and refine the probe.

    Args:
        intensity: zero frequency in the centre, shape (n, M, M).
        probe: of any scale, shape (M, M).
        positions: corners in pixels, not below 0, shape (n, 2).
        mask: where the detector measures, shape (M, M).
        sweeps: over all patterns, in a random order each.
        seed: of that order.
    """
    side = probe.shape[0]
    scale = photons_per_intensity(intensity, probe, mask)
    measured = np.sqrt(ifftshift(intensity, axes=(1, 2)) / np.float32(scale))
    seen = ifftshift(mask)
    corners = np.floor(positions).astype(int)
    fractions = positions - corners
    frequencies = np.fft.fftfreq(side)
    image = np.ones(tuple(corners.max(axis=0) + side + 1), np.complex64)
    total = float(measured[:, seen].sum(dtype=np.float64))
    order, errors = np.random.default_rng(seed), []
    for sweep in range(sweeps):
        error, step = 0.0, np.float32(min(1, 2 * (1 - sweep / sweeps)))
        for k in order.permutation(len(positions)):
            rows, columns = np.exp(-2j * np.pi * frequencies * fractions[k][:, None]).astype(np.complex64)
            ramp = rows[:, None] * columns
            moved = ifft2(fft2(probe) * ramp)
            area = image[corners[k, 0] : corners[k, 0] + side, corners[k, 1] : corners[k, 1] + side]
            patch = area.copy()
            wave = fft2(moved * patch, norm="ortho")
            amplitude = np.abs(wave)
            error += float(np.abs(amplitude - measured[k])[seen].sum())
            wave *= np.where(seen, measured[k] / np.maximum(amplitude, TINY), 1)
            change = ifft2(wave, norm="ortho") - moved * patch
            area += step * moved.conj() * change / max((np.abs(moved) ** 2).max(), TINY)
            back = fft2(patch.conj() * change / max((np.abs(patch) ** 2).max(), TINY)) * ramp.conj()
            probe = probe + step * ifft2(back)
        errors.append(error / total)
    return Reconstruction(image, probe.astype(np.complex64), tuple(errors))
