"""The grid-lines object: blurred random straight lines.

The recipe is the `lines` data source of PtychoPINN (Hoidn, Mishra & Mehta, Sci. Rep. 13, 22789,
2023, https://github.com/hoidn/PtychoPINN).
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.draw import line
from torch import Tensor

from fnostab.errors import DataError

__all__ = ["line_object"]

BLUR = ((1, 1), (2, 5), (5, 10))  # weight and standard deviation in pixels of each Gaussian


def line_object(size: int, n_lines: int, set_phi: bool, generator: torch.Generator) -> Tensor:
    """A random object, complex64 of shape (size, size), with a mean amplitude of 1.

    The lines are drawn on a canvas twice as large, whose centre is cut out, so that they reach the
    edges of the object as often as its middle.

    Args:
        size: pixels along a side.
        n_lines: lines on the whole canvas.
        set_phi: whether the phase is pi * tanh((A - max(A) / 2) / (3 mean(A))), with A the amplitude;
            otherwise it is zero.
        generator: of the lines' ends.

    Raises:
        DataError: no line comes near the object, so that its amplitude is zero.
    """
    canvas = np.zeros((2 * size, 2 * size))
    for ends in torch.randint(2 * size, (n_lines, 4), generator=generator).tolist():
        canvas[line(*ends)] = 1
    margin = size // 2
    amplitude = blur(canvas)[margin : margin + size, margin : margin + size]
    mean = amplitude.mean()
    if mean == 0:
        raise DataError(f"none of n_lines={n_lines} lines crosses the object: raise data.n_lines")
    amplitude /= mean
    phase = math.pi * np.tanh((amplitude - amplitude.max() / 2) / 3) if set_phi else 0
    return torch.from_numpy((amplitude * np.exp(1j * phase)).astype(np.complex64))


def blur(canvas: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of Gaussian blurs of a 2-D array: a sharp line on a broad foot."""
    return sum((weight * gaussian_filter(canvas, sigma) for weight, sigma in BLUR), start=np.zeros_like(canvas))
