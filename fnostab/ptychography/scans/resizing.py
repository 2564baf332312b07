"""Resample probes and images for patterns that are cropped to fewer pixels."""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray


def central(part: int, whole: int) -> slice:
    """The central ``part`` of ``whole`` pixels, around pixel ``whole // 2``."""
    first = whole // 2 - part // 2
    return slice(first, first + part)


def crop_probe(probe: NDArray[np.complex64], N: int) -> NDArray[np.complex64]:
    """Resample a probe (M, M) for patterns cropped to N pixels: the same field of view on N x N larger pixels."""
    return _crop(probe, (N, N))


def resize_image(image: NDArray[np.complex64], zoom: float) -> NDArray[np.complex64]:
    """Resample an image (H, W) to pixels 1 / ``zoom`` times as large, by cropping its spectrum; pixel (0, 0) is fixed.

    The lower and right edges are padded by repetition to a whole number of new pixels.
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
