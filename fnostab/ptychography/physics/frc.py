"""Fourier ring correlation: up to which spatial frequency a reconstruction agrees with the truth.

Saxton and Baumeister 1982, "The correlation averaging of a regularly arranged bacterial cell envelope protein", eq. 6.
"""

import numpy as np
from torch import Tensor

from fnostab.ptychography.physics.alignment import Field, Image, align

__all__ = ["fourier_ring_correlation", "frc_resolution"]


def fourier_ring_correlation(prediction: Tensor, truth: Tensor) -> Image:
    """Correlation of the complex fields after `align` in rings of spatial frequency, from 0 to that of the pixels.

    Means are removed and edges faded out by a Hann window, so that neither the brightness nor the image's frame agrees.
    A ring in which either field has nothing has a correlation of 0.

    Args:
        prediction: stitched, complex, shape (H, W).
        truth: complex, same shape.

    Returns:
        Shape (min(H, W) // 2 + 1,), between 0 and 1: ring k is about k / (2 (rings - 1)) cycles a pixel.
    """
    spectra = [np.fft.fft2(_faded(field)) for field in align(prediction, truth).fields]
    rows, columns = (np.fft.fftfreq(length) for length in truth.shape)
    rings = min(truth.shape) // 2 + 1
    ring = np.rint(2 * (rings - 1) * np.hypot(rows[:, None], columns)).astype(int)

    def over_rings(values: Image) -> Image:
        return np.bincount(ring.ravel(), weights=values.ravel(), minlength=rings)[:rings].astype(float)

    product = spectra[0] * spectra[1].conj()
    power = np.sqrt(over_rings(np.abs(spectra[0]) ** 2) * over_rings(np.abs(spectra[1]) ** 2))
    common = np.hypot(over_rings(product.real), over_rings(product.imag))
    return np.asarray(np.divide(common, power, out=np.zeros(rings), where=power > np.finfo(float).tiny), dtype=float)


def frc_resolution(curve: Image, threshold: float) -> float:
    """Spatial frequency at which a `fourier_ring_correlation` first falls below ``threshold``.

    As a share of the highest that pixels can hold, half a cycle a pixel; 1 if it never does. Ring 0, the mean, is left
    out.
    """
    below = np.flatnonzero(curve[1:] < threshold)
    return float(below[0]) / (len(curve) - 1) if below.size else 1.0


def _faded(field: Field) -> Field:
    height, width = field.shape
    return np.asarray((field - field.mean()) * np.hanning(height)[:, None] * np.hanning(width))
