"""Fourier ring correlation: up to which spatial frequency a reconstruction agrees with the truth.

Saxton and Baumeister 1982, "The correlation averaging of a regularly arranged bacterial cell envelope protein", eq. 6;
of complex fields its real part: van Heel and Schatz 2005, "Fourier shell correlation threshold criteria".
"""

import numpy as np

from fnostab.ptychography.physics.alignment import FLAT, Aligned, Field, Image

__all__ = ["fourier_ring_correlation", "frc_resolution"]


def fourier_ring_correlation(pair: Aligned) -> Image:
    """Correlation of the complex fields in rings of spatial frequency, from 0 to that of the pixels.

    Means are removed and edges faded out by a Hann window, so that neither the brightness nor the image's frame agrees.
    A ring in which either field has nothing but rounding has a correlation of 0.

    Returns:
        Shape (min(H, W) // 2 + 1,), between -1 and 1: ring k is about k / (2 (rings - 1)) cycles a pixel.
    """
    shape = pair.true_amplitude.shape
    spectra = [np.fft.fft2(_faded(field)) for field in pair.fields]
    rows, columns = (np.fft.fftfreq(length) for length in shape)
    rings = min(shape) // 2 + 1
    ring = np.rint(2 * (rings - 1) * np.hypot(rows[:, None], columns)).astype(int)

    def over_rings(values: Image) -> Image:
        return np.bincount(ring.ravel(), weights=values.ravel(), minlength=rings)[:rings].astype(float)

    power = [over_rings(np.abs(spectrum) ** 2) for spectrum in spectra]
    rounding = over_rings(np.ones(shape)) * pair.true_amplitude.size * (FLAT * pair.true_amplitude.mean()) ** 2
    common = over_rings((spectra[0] * spectra[1].conj()).real)
    seen = np.minimum(*power) > rounding
    return np.asarray(np.divide(common, np.sqrt(power[0] * power[1]), out=np.zeros(rings), where=seen), dtype=float)


def frc_resolution(curve: Image, threshold: float) -> float:
    """The highest frequency up to which the curve stays at or above threshold.

    As a share of the highest that pixels can hold, half a cycle a pixel: 1 if it stays so in all rings. Ring 0, the
    mean, is left out. Against a known truth the threshold is 1/2. 1/7 is that between two reconstructions, each of one
    half of the data: sqrt(2 c / (1 + c)) of c = 1/7 is 1/2 (Rosenthal and Henderson 2003).

    Args:
        curve: of `fourier_ring_correlation`, shape (rings,).
        threshold: between 0 and 1.
    """
    below = np.flatnonzero(curve[1:] < threshold)
    return float(below[0]) / (len(curve) - 1) if below.size else 1.0


def _faded(field: Field) -> Field:
    height, width = field.shape
    return np.asarray((field - field.mean()) * np.hanning(height)[:, None] * np.hanning(width))
