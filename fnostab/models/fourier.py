"""The low Fourier modes of square images, and images from them, as real numbers.

Two forms of the same transform. With few modes, products with small constant matrices are faster: they
compute only what is kept, have no complex numbers, and leave the modes in the order in which they are mixed.
With many, the FFT is. `benchmarks/spectral.py` measures where they cross.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

__all__ = ["FFTFourier", "MatrixFourier", "TruncatedFourier", "truncated_fourier"]

MOST_MATRIX_MODES = 24  # up to which matrices win


class TruncatedFourier(ABC):
    """Transforms images with ``resolution`` pixels a side to their low modes and back.

    Kept are the ``modes`` lowest frequencies of each sign along the rows and the ``modes`` lowest along the
    columns, as far as they exist. Negative column frequencies of a real image follow from the others.

    Attributes:
        rows: number of row frequencies: 0 to ``modes`` - 1, then -``modes`` to -1.
        columns: number of column frequencies: 0 to ``modes`` - 1.
    """

    def __init__(self, modes: int, resolution: int) -> None:
        self.modes = modes
        self.resolution = resolution
        self.rows = min(2 * modes, resolution)
        self.columns = min(modes, resolution // 2 + 1)

    @abstractmethod
    def to_modes(self, x: Tensor) -> Tensor:
        """Images (B, C, resolution, resolution) -> modes (columns * rows, 2, B, C), real and imaginary parts."""

    @abstractmethod
    def to_image(self, modes: Tensor) -> Tensor:
        """Modes (columns * rows, 2, B, C) -> the real images (B, C, resolution, resolution) that have them."""

    def apply(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Change all constants, as `torch.nn.Module` does its buffers: move them to a device, say."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, change(value))
        return self


class MatrixFourier(TruncatedFourier):
    """By products with the real and imaginary parts of the truncated Fourier matrices, one axis at a time."""

    def __init__(self, modes: int, resolution: int) -> None:
        super().__init__(modes, resolution)
        k = torch.arange(self.rows, dtype=torch.float64)
        if self.rows < resolution:
            k[modes:] -= 2 * modes
        cos, sin = _waves(k, resolution)
        # Real and imaginary parts of the result, from the real part of the argument and from the imaginary one.
        self.rows_of_real = torch.cat((cos, -sin)).float()
        self.rows_of_imaginary = torch.cat((sin, cos)).float()
        self.real_of_rows = self.rows_of_real / resolution
        self.imaginary_of_rows = self.rows_of_imaginary / resolution
        columns = torch.arange(self.columns, dtype=torch.float64)
        cos, sin = _waves(columns, resolution)
        self.to_columns = torch.cat((cos, -sin)).float()
        # Each other column stands for its negative frequency too. Zero and Nyquist have no imaginary part.
        times = torch.where((columns == 0) | (2 * columns == resolution), 1.0, 2.0)[:, None] / resolution
        self.from_columns = torch.cat((cos * times, -sin * times)).float()

    def to_modes(self, x: Tensor) -> Tensor:
        """Columns first: that leaves least to do for the rows."""
        B, C, N, _ = x.shape
        real, imaginary = (self.to_columns @ x.reshape(-1, N).T).view(2, self.columns, B * C, N).transpose(2, 3)
        modes = torch.baddbmm(
            torch.bmm(self._at_columns(self.rows_of_real), real), self._at_columns(self.rows_of_imaginary), imaginary
        )
        return modes.view(self.columns, 2, self.rows, B, C).transpose(1, 2).reshape(-1, 2, B, C)

    def to_image(self, modes: Tensor) -> Tensor:
        """Rows first, for the same reason."""
        _, _, B, C = modes.shape
        N = self.resolution
        flat = modes.view(self.columns, self.rows, 2, B * C).permute(0, 3, 2, 1).reshape(self.columns, B * C, -1)
        real = torch.bmm(flat, self._at_columns(self.real_of_rows))
        imaginary = torch.bmm(flat, self._at_columns(self.imaginary_of_rows))
        lines = torch.stack((real, imaginary)).view(2 * self.columns, -1)
        return (lines.T @ self.from_columns).view(B, C, N, N)

    def _at_columns(self, matrix: Tensor) -> Tensor:
        return matrix.expand(self.columns, -1, -1)


class FFTFourier(TruncatedFourier):
    """By fast Fourier transforms of whole images, of which the low modes are kept."""

    def __init__(self, modes: int, resolution: int) -> None:
        super().__init__(modes, resolution)
        # The zero and the Nyquist column of a real image's spectrum have no imaginary part after the
        # inverse transform of the rows. It is dropped here, as FFT libraries differ in what they do with it.
        self.has_imaginary = torch.ones(self.columns, 2)
        self.has_imaginary[0, 1] = 0
        if 2 * (self.columns - 1) == resolution:
            self.has_imaginary[-1, 1] = 0

    def to_modes(self, x: Tensor) -> Tensor:
        """Transform, keep, reorder."""
        spectrum = torch.fft.fft(torch.fft.rfft(x)[..., : self.columns], dim=-2)
        if self.rows < self.resolution:
            spectrum = torch.cat([spectrum[..., : self.modes, :], spectrum[..., -self.modes :, :]], dim=-2)
        return torch.view_as_real(spectrum).permute(3, 2, 4, 0, 1).reshape(-1, 2, *x.shape[:2])

    def to_image(self, modes: Tensor) -> Tensor:
        """Reorder, fill up with zeros, transform."""
        _, _, B, C = modes.shape
        pairs = modes.view(self.columns, self.rows, 2, B, C).permute(3, 4, 1, 0, 2).contiguous()
        spectrum = torch.view_as_complex(pairs)
        if gap := self.resolution - self.rows:
            zeros = spectrum.new_zeros(B, C, gap, self.columns)
            spectrum = torch.cat([spectrum[..., : self.modes, :], zeros, spectrum[..., self.modes :, :]], dim=-2)
        half = torch.view_as_real(torch.fft.ifft(spectrum, dim=-2)) * self.has_imaginary
        return torch.fft.irfft(torch.view_as_complex(half), n=self.resolution)


def truncated_fourier(modes: int, resolution: int) -> TruncatedFourier:
    """The faster form for that size."""
    return (MatrixFourier if modes <= MOST_MATRIX_MODES else FFTFourier)(modes, resolution)


def _waves(frequencies: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines, (frequencies, resolution), float64."""
    pixels = torch.arange(resolution, dtype=torch.float64)
    phase = 2 * math.pi * torch.outer(frequencies, pixels) / resolution
    return phase.cos(), phase.sin()
