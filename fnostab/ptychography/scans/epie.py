"""Reconstruct object and probe with the extended ptychographical iterative engine (ePIE).

Maiden and Rodenburg 2009, "An improved ptychographical phase retrieval algorithm for diffractive imaging". Both step
sizes are 1 in the first half of the sweeps and decrease to 0 in the second, since constant steps would follow the
photon noise of each pattern. Fractional positions are handled by subpixel shifts of the probe.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fft2, ifft2, ifftshift

TINY = np.float32(1e-12)


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """Result of `epie`.

    Attributes:
        object: reconstructed object, complex64 of shape (H, W); pixel (0, 0) is position (0, 0).
        probe: refined probe, complex64 of shape (M, M).
        errors: amplitude error sum |a - A| / sum A of each sweep, computed before each update.
    """

    object: NDArray[np.complex64]
    probe: NDArray[np.complex64]
    errors: tuple[float, ...]


def photons_per_intensity(
    intensity: NDArray[np.float32], probe: NDArray[np.complex64], mask: NDArray[np.bool_]
) -> float:
    """Scale of measured intensity relative to a probe's: mean pattern sum over the sum of the probe's far field.

    Args:
        intensity: measured intensity, shape (n, M, M).
        probe: probe, shape (M, M).
        mask: pixels to sum over, shape (M, M), with the zero frequency in the centre.
    """
    empty = np.abs(np.fft.fftshift(fft2(probe, norm="ortho"))) ** 2
    return float(intensity[:, mask].sum(axis=1, dtype=np.float64).mean() / empty[mask].sum(dtype=np.float64))


def epie(
    intensity: NDArray[np.float32],
    probe: NDArray[np.complex64],
    positions: NDArray[np.float64],
    mask: NDArray[np.bool_],
    sweeps: int,
) -> Reconstruction:
    """Reconstruct the object, starting from a constant 1, and refine the probe.

    Args:
        intensity: measured intensity with the zero frequency in the centre, shape (n, M, M).
        probe: initial probe of any scale, shape (M, M).
        positions: top-left corners in pixels, at least 0, shape (n, 2).
        mask: valid detector pixels, shape (M, M).
        sweeps: number of passes over all patterns, each in a new random order.
    """
    side = probe.shape[0]
    unit = np.float32(2.0 ** np.rint(np.log2(np.abs(probe).max())))  # TINY is small beside a peak of about 1 only
    probe = probe / unit
    scale = photons_per_intensity(intensity, probe, mask)
    measured = np.sqrt(ifftshift(intensity, axes=(1, 2)) / np.float32(scale))
    seen = ifftshift(mask)
    corners = np.floor(positions).astype(int)
    fractions = positions - corners
    image = np.ones(tuple(corners.max(axis=0) + side + 1), np.complex64)
    total = float(measured[:, seen].sum(dtype=np.float64))
    order, errors = np.random.default_rng(0), []
    for sweep in range(sweeps):
        error, step = 0.0, np.float32(min(1, 2 * (1 - sweep / sweeps)))
        for k in order.permutation(len(positions)):
            moved, ramp = _moved(probe, fractions[k])
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
    return Reconstruction(image, (unit * probe).astype(np.complex64), tuple(errors))


def amplitude_error(
    intensity: NDArray[np.float32],
    probe: NDArray[np.complex64],
    positions: NDArray[np.float64],
    mask: NDArray[np.bool_],
    image: NDArray[np.complex64],
) -> float:
    """Amplitude error sum |a - A| / sum A of a given object, scaled to the measured intensity.

    Args:
        intensity: measured intensity with the zero frequency in the centre, shape (n, M, M).
        probe: probe of any scale, shape (M, M).
        positions: top-left corners in pixels of the object, shape (n, 2).
        mask: valid detector pixels, shape (M, M).
        image: object, shape (H, W), on which all patches lie.
    """
    side, seen = probe.shape[0], ifftshift(mask)
    corners = np.floor(positions).astype(int)
    measured = np.sqrt(ifftshift(intensity, axes=(1, 2))[:, seen], dtype=np.float64)
    predicted = np.empty_like(measured)
    for k, (row, column) in enumerate(corners):
        moved, _ = _moved(probe, positions[k] - corners[k])
        predicted[k] = np.abs(fft2(moved * image[row : row + side, column : column + side], norm="ortho"))[seen]
    predicted *= np.sqrt((measured**2).sum() / max((predicted**2).sum(), TINY))
    return float(np.abs(predicted - measured).sum() / measured.sum())


def _moved(
    probe: NDArray[np.complex64], fractions: NDArray[np.float64]
) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    """Probe moved by fractions of a pixel, and the phase ramp that moves it."""
    turns = np.fft.fftfreq(probe.shape[0]) * fractions[:, None]
    rows, columns = np.exp(-2j * np.pi * turns).astype(np.complex64)
    ramp = rows[:, None] * columns
    return ifft2(fft2(probe) * ramp), ramp
