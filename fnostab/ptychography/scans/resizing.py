"""Bring a scan to patterns of N pixels: the central ones, or sums of neighbours."""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

__all__ = ["central", "crop_probe", "resize_image"]


def central(part: int, whole: int) -> slice:
    """The central ``part`` of ``whole`` pixels, around pixel ``whole // 2``."""
    first = whole // 2 - part // 2
    return slice(first, first + part)


def crop_probe(probe: NDArray[np.complex64], N: int) -> NDArray[np.complex64]:
    """The probe (M, M) as a detector of N central pixels sees it: as wide in metres, on N x N larger pixels."""
    return _crop(probe, (N, N))


def resize_image(image: NDArray[np.complex64], zoom: float) -> NDArray[np.complex64]:
    """An image (H, W) on pixels 1 / ``zoom`` as large, by its spectrum's central part; pixel (0, 0) stays in place.

    Its lower and right edges are repeated until both sides are whole numbers of the new pixels.
    """
    if zoom == 1:
        return image
    share = Fraction(zoom).limit_denominator(4096)
    padding = [(0, -side % share.denominator) for side in image.shape]
    whole = np.pad(image, padding, mode="edge")
    return _crop(whole, tuple(side * share.numerator // share.denominator for side in whole.shape))


def _crop(image: NDArray[np.complex64], shape: tuple[int, ...]) -> NDArray[np.complex64]:
    spectrum = np.fft.fftshift(np.fft.fft2(image.astype(complex)))
    inner = map(central, shape, image.shape)
    smaller = np.fft.ifft2(np.fft.ifftshift(spectrum[tuple(inner)]))
    return np.asarray(smaller * (smaller.size / image.size), dtype=np.complex64)
