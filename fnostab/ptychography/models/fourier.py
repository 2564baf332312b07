"""The low Fourier modes of square images, and images from them, as real numbers.

Two forms of the same transform. With few modes, products with small constant matrices are faster: they
compute only what is kept, have no complex numbers, and leave the modes in the order in which they are mixed.
With many, the FFT is. `benchmarks/spectral.py` measures where they cross.

Channels are the last axis, here and in the memory of a whole network: convolutions on a CPU are then
faster too, and each transform is one product with what lies there.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

__all__ = ["FFTFourier", "MatrixFourier", "TruncatedFourier", "truncated_fourier"]

MOST_MATRIX_MODES = 32  # up to which matrices win, where there are as many channels


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
        """Images (B, resolution, resolution, C) -> modes (columns * rows, 2, B, C), real and imaginary parts."""

    @abstractmethod
    def to_image(self, modes: Tensor) -> Tensor:
        """Modes (columns * rows, 2, B, C) -> the real images (B, resolution, resolution, C) that have them."""

    def apply(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Change all constants, as `torch.nn.Module` does its buffers: move them to a device, say."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, change(value))
        return self


class MatrixFourier(TruncatedFourier):
    """Truncated Fourier transform by products with real matrices, one axis at a time."""

    def __init__(self, modes: int, resolution: int) -> None:
        super().__init__(modes, resolution)
        k = torch.arange(self.rows, dtype=torch.float64)
        if self.rows < resolution:
            k[modes:] -= 2 * modes
        cos, sin = _waves(k, resolution)
        # (2 * rows, resolution * 2): real and imaginary part of each row frequency from those of each pixel.
        to_rows = (
            torch.stack((torch.stack((cos, sin), dim=-1), torch.stack((-sin, cos), dim=-1))).flatten(2).flatten(0, 1)
        )
        self.to_rows = to_rows.float()
        self.from_rows = (to_rows.T / resolution).float().contiguous()
        columns = torch.arange(self.columns, dtype=torch.float64)
        cos, sin = _waves(columns, resolution)
        self.to_columns = torch.cat((cos, -sin)).float()
        # Each other column stands for its negative frequency too. Zero and Nyquist have no imaginary part.
        times = torch.where((columns == 0) | (2 * columns == resolution), 1.0, 2.0)[:, None] / resolution
        self.from_columns = torch.cat((cos * times, -sin * times)).T.float().contiguous()

    def to_modes(self, x: Tensor) -> Tensor:
        """Columns first: that leaves least to do for the rows."""
        B, N, _, C = x.shape
        columns = _times_each(self.to_columns, x.reshape(B * N, N, C))
        modes = _times_each(self.to_rows, columns.view(B, 2 * N, self.columns * C))
        return modes.view(B, 2, self.rows, self.columns, C).permute(3, 2, 1, 0, 4).reshape(-1, 2, B, C)

    def to_image(self, modes: Tensor) -> Tensor:
        """Rows first, for the same reason."""
        _, _, B, C = modes.shape
        N = self.resolution
        modes = modes.view(self.columns, self.rows, 2, B, C).permute(3, 2, 1, 0, 4)
        columns = _times_each(self.from_rows, modes.reshape(B, 2 * self.rows, self.columns * C))
        return _times_each(self.from_columns, columns.view(B * N, 2 * self.columns, C)).view(B, N, N, C)


class FFTFourier(TruncatedFourier):
    """Truncated Fourier transform by FFTs of whole images, of which the low modes are kept."""

    def __init__(self, modes: int, resolution: int) -> None:
        super().__init__(modes, resolution)
        # The zero and the Nyquist column of a real image's spectrum have no imaginary part after the
        # inverse transform of the rows. It is dropped here, as FFT libraries differ in what they do with it.
        self.has_imaginary = torch.ones(self.columns, 1, 2)
        self.has_imaginary[0, :, 1] = 0
        if 2 * (self.columns - 1) == resolution:
            self.has_imaginary[-1, :, 1] = 0

    def to_modes(self, x: Tensor) -> Tensor:
        """Transform, keep, reorder."""
        spectrum = torch.fft.fft(torch.fft.rfft(x, dim=2)[:, :, : self.columns], dim=1)
        if self.rows < self.resolution:
            spectrum = torch.cat([spectrum[:, : self.modes], spectrum[:, -self.modes :]], dim=1)
        return torch.view_as_real(spectrum).permute(2, 1, 4, 0, 3).reshape(-1, 2, x.shape[0], x.shape[3])

    def to_image(self, modes: Tensor) -> Tensor:
        """Reorder, fill up with zeros, transform."""
        _, _, B, C = modes.shape
        pairs = modes.view(self.columns, self.rows, 2, B, C).permute(3, 1, 0, 4, 2).contiguous()
        spectrum = torch.view_as_complex(pairs)
        if gap := self.resolution - self.rows:
            zeros = spectrum.new_zeros(B, gap, self.columns, C)
            spectrum = torch.cat([spectrum[:, : self.modes], zeros, spectrum[:, self.modes :]], dim=1)
        half = torch.view_as_real(torch.fft.ifft(spectrum, dim=1)) * self.has_imaginary
        return torch.fft.irfft(torch.view_as_complex(half), n=self.resolution, dim=2)


def truncated_fourier(modes: int, resolution: int, channels: int) -> TruncatedFourier:
    """The faster form: matrices up to 32 modes, but no more than channels, since narrow products are slow."""
    return (MatrixFourier if modes <= min(channels, MOST_MATRIX_MODES) else FFTFourier)(modes, resolution)


def _times_each(matrix: Tensor, stack: Tensor) -> Tensor:
    """One matrix (m, k) times each of a stack (n, k, l): (n, m, l)."""
    return torch.bmm(matrix.expand(stack.shape[0], -1, -1), stack)  # len() would fix the batch in an export


def _waves(frequencies: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines, (frequencies, resolution), float64."""
    pixels = torch.arange(resolution, dtype=torch.float64)
    phase = 2 * math.pi * torch.outer(frequencies, pixels) / resolution
    return phase.cos(), phase.sin()
