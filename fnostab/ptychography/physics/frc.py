"""Fourier ring correlation (FRC): the spatial frequency up to which a reconstruction agrees with the truth.

Saxton and Baumeister 1982, "The correlation averaging of a regularly arranged bacterial cell envelope protein", eq. 6;
for complex fields its real part: van Heel and Schatz 2005, "Fourier shell correlation threshold criteria".
"""

import numpy as np

from fnostab.ptychography.physics.alignment import FLAT, Aligned, Field, Image


def fourier_ring_correlation(pair: Aligned) -> Image:
    """Correlation of the complex fields in rings of spatial frequency, from 0 to the Nyquist frequency.

    Means are subtracted and a Hann window is applied, so that neither the brightness nor the image borders correlate.
    The correlation is 0 in a ring where either field contains only rounding errors.

    Args:
        pair: result of `align`.

    Returns:
        Correlations between -1 and 1, shape (min(H, W) // 2 + 1,); ring k is at about k / (2 (rings - 1)) cycles per
        pixel.
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
    """Highest spatial frequency up to which the correlation is at least ``threshold``, relative to Nyquist.

    It is 1 if all rings reach the threshold. Ring 0, the mean, is ignored. The usual threshold is 1/2 against a known
    truth, and 1/7 between two reconstructions from one half of the data each: sqrt(2 c / (1 + c)) is 1/2 for c = 1/7
    (Rosenthal and Henderson 2003).

    Args:
        curve: result of `fourier_ring_correlation`, shape (rings,).
        threshold: between 0 and 1.
    """
    below = np.flatnonzero(curve[1:] < threshold)
    return float(below[0]) / (len(curve) - 1) if below.size else 1.0


def _faded(field: Field) -> Field:
    height, width = field.shape
    return np.asarray((field - field.mean()) * np.hanning(height)[:, None] * np.hanning(width))
