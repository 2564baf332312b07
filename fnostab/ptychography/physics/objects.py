"""Objects: blurred random straight lines, other random patterns, or areas of a user's image.

Lines and phase follow the `lines` data source of PtychoPINN (Hoidn, Mishra & Mehta, Sci. Rep. 13, 22789, 2023,
https://github.com/hoidn/PtychoPINN). All objects have a mean amplitude of 1.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.draw import disk, line
from torch import Tensor

from fnostab.errors import DataError
from fnostab.ptychography.physics.input_files import insist_on_sha256, read_npz, unreadable
from fnostab.ptychography.settings import DataConfig

Image = NDArray[np.float64]

BLUR = ((1, 1), (2, 5), (5, 10))  # weight and standard deviation in pixels of each Gaussian


def make_object(config: DataConfig, generator: torch.Generator) -> Tensor:
    """Create a random object of the configured kind, complex64 of shape (object_size, object_size).

    Raises:
        DataError: the object's amplitude is zero everywhere.
    """
    size = config.object_size
    if config.object.kind == "lines":
        pattern = _lines(size, config.n_lines, generator)
    else:
        pattern = PATTERNS[config.object.kind](size, generator)
    return _with_phase(pattern, set_phi=config.set_phi, phase_only=config.phase_only)


def object_areas(config: DataConfig, count: int, generator: torch.Generator) -> list[Tensor]:
    """Cut disjoint areas from the user's image, in random order.

    A complex image keeps its phase; a real one gets a phase by the same formula as lines. Without ``set_phi`` only the
    amplitude is used, with ``phase_only`` only the phase.

    Args:
        config: data settings with the image's path and the size of an object.
        count: number of areas.
        generator: random generator for the order.

    Returns:
        ``count`` objects, each complex64 of shape (object_size, object_size).

    Raises:
        DataError: the file can't be used, the image is too small, or an area is zero everywhere.
    """
    path, size = config.object.path or "", config.object_size
    insist_on_sha256(path, "object", config.object.sha256)
    image = read_npz(path, "object") if path.lower().endswith(".npz") else _read_image(path)
    if not _is_object(image):
        raise DataError(
            f"object file {path} holds {image.dtype} of shape {image.shape}, expected numbers of shape (H, W), finite, "
            "and complex or not negative"
        )
    rows, columns = (length // size for length in image.shape)
    if rows * columns < count:
        raise DataError(
            f"object file {path} is {image.shape[0]} x {image.shape[1]}: training, validation and test need {count} "
            f"areas of data.object_size={size} without a pixel in common, only {rows * columns} fit: lower it"
        )
    chosen = torch.randperm(rows * columns, generator=generator)[:count].tolist()
    corners = [(size * (k // columns), size * (k % columns)) for k in chosen]
    areas = [image[row : row + size, column : column + size] for row, column in corners]
    return [_of_area(area, config) for area in areas]


def _is_object(image: NDArray[Any]) -> bool:
    if image.ndim != 2 or not image.size or image.dtype.kind not in "biufc" or not np.isfinite(image).all():
        return False
    return np.iscomplexobj(image) or bool(image.min() >= 0)


def _lines(size: int, n_lines: int, generator: torch.Generator) -> Image:
    """Draw lines on a canvas twice as large and cut out its centre, so that lines cover the edges as often."""
    canvas = np.zeros((2 * size, 2 * size))
    for ends in torch.randint(2 * size, (n_lines, 4), generator=generator).tolist():
        canvas[line(*ends)] = 1
    margin = size // 2
    amplitude = blur(canvas)[margin : margin + size, margin : margin + size]
    if not amplitude.any():
        raise DataError(f"none of n_lines={n_lines} lines crosses the object: raise data.n_lines")
    return amplitude


def _gaussian_field(size: int, generator: torch.Generator) -> Image:
    """Draw a log-normal field whose logarithm has a power spectrum of f^-3 and a standard deviation of 0.3."""
    noise = torch.randn(2 * size, 2 * size, generator=generator, dtype=torch.float64).numpy()
    frequency = np.hypot(np.fft.fftfreq(2 * size)[:, None], np.fft.fftfreq(2 * size))
    frequency[0, 0] = np.inf
    field = np.fft.ifft2(np.fft.fft2(noise) * frequency**-1.5).real[:size, :size]
    return np.asarray(np.exp(0.3 * (field - field.mean()) / field.std()))


def _dead_leaves(size: int, generator: torch.Generator) -> Image:
    """Draw overlapping discs of random grey, with radii distributed as r^-3 (Lee, Mumford and Huang 2001)."""
    smallest, largest, n_discs = 2.0, size / 5, 10 * size
    u, row, column, grey = torch.rand(4, n_discs, generator=generator, dtype=torch.float64).numpy()
    radii = (smallest**-2 - u * (smallest**-2 - largest**-2)) ** -0.5
    canvas = np.full((size, size), 0.6)
    for r, y, x, value in zip(radii, row * size, column * size, grey, strict=True):
        canvas[disk((y, x), r, shape=canvas.shape)] = 0.2 + 0.8 * value
    return np.asarray(gaussian_filter(canvas, 1))


def _siemens_star(size: int, generator: torch.Generator) -> Image:
    """Draw a Siemens star of 24 to 48 spokes with a random rotation and centre, on a darker background."""
    turn, row, column = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    spokes = int(torch.randint(24, 49, (1,), generator=generator))
    rows, columns = np.indices((size, size)) - size * (0.4 + 0.2 * np.array([row, column])).reshape(2, 1, 1)
    bright = np.sin(spokes * np.arctan2(rows, columns) + 2 * np.pi * turn) > 0
    lit = bright & (np.hypot(rows, columns) < 0.45 * size)
    return np.asarray(gaussian_filter(np.where(lit, 1.0, 0.4), 1))


PATTERNS: dict[str, Callable[[int, torch.Generator], Image]] = {
    "gaussian_field": _gaussian_field,
    "dead_leaves": _dead_leaves,
    "siemens_star": _siemens_star,
}


def _with_phase(pattern: Image, *, set_phi: bool, phase_only: bool) -> Tensor:
    """Complex object with amplitude A of mean 1 and, with ``set_phi``, phase pi * tanh((A - max(A) / 2) / 3)."""
    amplitude = pattern / pattern.mean()
    phase = math.pi * np.tanh((amplitude - amplitude.max() / 2) / 3) if set_phi else 0
    return torch.from_numpy(((1.0 if phase_only else amplitude) * np.exp(1j * phase)).astype(np.complex64))


def _of_area(area: NDArray[Any], config: DataConfig) -> Tensor:
    amplitude = np.abs(area).astype(float)
    if not amplitude.any():
        raise DataError(f"object file {config.object.path} is zero in a whole area of {area.shape}: crop it")
    if not np.iscomplexobj(area):
        return _with_phase(amplitude, set_phi=config.set_phi, phase_only=config.phase_only)
    amplitude = np.ones_like(amplitude) if config.phase_only else amplitude / amplitude.mean()
    return torch.from_numpy((amplitude * np.exp(1j * np.angle(area) * config.set_phi)).astype(np.complex64))


def _read_image(path: str) -> Image:
    """Read the grey values (H, W) of a grey or colour image, the luminance for colour; alpha is ignored."""
    from skimage.color import rgb2gray  # slow imports (0.25 s), rarely needed
    from skimage.io import imread

    try:
        image = imread(path)
    except (OSError, ValueError, SyntaxError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise unreadable(path, "object", error) from error
        raise DataError(f"object file {path} is neither an image nor an NPZ file (.npz): save it as one") from error
    if image.ndim == 2:
        return np.asarray(image, dtype=float)
    if image.ndim == 3 and image.shape[-1] in (2, 3, 4):
        return np.asarray(image[..., 0] if image.shape[-1] == 2 else rgb2gray(image[..., :3]), dtype=float)
    raise DataError(
        f"object file {path} has shape {image.shape}, expected one image: (H, W), or (H, W, 2), (H, W, 3) or (H, W, 4) "
        "of grey or colour with its alpha: save one page of it"
    )


def blur(canvas: Image) -> Image:
    """Weighted sum of Gaussian blurs of a 2-D array, which gives lines a sharp core and broad tails."""
    return sum((weight * gaussian_filter(canvas, sigma) for weight, sigma in BLUR), start=np.zeros_like(canvas))
