"""Transform square images to their low Fourier modes and back, in real arithmetic.

There are two implementations of the same transform. For few modes, products with small constant matrices are faster:
they compute only the kept modes, need no complex numbers, and return the modes in the order of the channel mixing. For
many modes the FFT is faster. `benchmarks/spectral.py` measures the crossover.

Channels are the last axis, here and in the memory of the whole network. Each transform is then a single matrix
product, and convolutions on a CPU are faster too.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

MOST_MATRIX_MODES = 32  # up to this number matrices are faster, given at least as many channels


class TruncatedFourier(ABC):
    """Transform of images with ``resolution`` pixels per side to their low Fourier modes and back.

    The ``modes`` lowest frequencies of each sign are kept along the rows, and the ``modes`` lowest along the columns,
    as far as they exist. Negative column frequencies of a real image follow from the others.

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
        """Transform images (B, resolution, resolution, C) to modes (columns * rows, real and imaginary, B, C)."""

    @abstractmethod
    def to_image(self, modes: Tensor) -> Tensor:
        """Transform modes (columns * rows, real and imaginary, B, C) to images (B, resolution, resolution, C)."""

    def apply(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to all constants, as `torch.nn.Module` does to its buffers, e.g. to change the device."""
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
        # (2 * rows, resolution * 2): maps real and imaginary parts of pixels to those of row frequencies.
        to_rows = (
            torch.stack((torch.stack((cos, sin), dim=-1), torch.stack((-sin, cos), dim=-1))).flatten(2).flatten(0, 1)
        )
        self.to_rows = to_rows.float()
        self.from_rows = (to_rows.T / resolution).float().contiguous()
        columns = torch.arange(self.columns, dtype=torch.float64)
        cos, sin = _waves(columns, resolution)
        self.to_columns = torch.cat((cos, -sin)).float()
        # All columns but zero and Nyquist also represent their negative frequency.
        times = torch.where((columns == 0) | (2 * columns == resolution), 1.0, 2.0)[:, None] / resolution
        self.from_columns = torch.cat((cos * times, -sin * times)).T.float().contiguous()

    def to_modes(self, x: Tensor) -> Tensor:
        """Transform columns first, which leaves the least work for the rows."""
        B, N, _, C = x.shape
        columns = _times_each(self.to_columns, x.reshape(B * N, N, C))
        modes = _times_each(self.to_rows, columns.view(B, 2 * N, self.columns * C))
        return modes.view(B, 2, self.rows, self.columns, C).permute(3, 2, 1, 0, 4).reshape(-1, 2, B, C)

    def to_image(self, modes: Tensor) -> Tensor:
        """Transform rows first, for the same reason."""
        _, _, B, C = modes.shape
        N = self.resolution
        modes = modes.view(self.columns, self.rows, 2, B, C).permute(3, 2, 1, 0, 4)
        columns = _times_each(self.from_rows, modes.reshape(B, 2 * self.rows, self.columns * C))
        return _times_each(self.from_columns, columns.view(B * N, 2 * self.columns, C)).view(B, N, N, C)


class FFTFourier(TruncatedFourier):
    """Truncated Fourier transform by FFTs of whole images, keeping the low modes."""

    def __init__(self, modes: int, resolution: int) -> None:
        super().__init__(modes, resolution)
        # For a real image the zero and the Nyquist column have no imaginary part after the inverse transform of the
        # rows. It is dropped here, since FFT libraries treat it differently.
        self.has_imaginary = torch.ones(self.columns, 1, 2)
        self.has_imaginary[0, :, 1] = 0
        if 2 * (self.columns - 1) == resolution:
            self.has_imaginary[-1, :, 1] = 0

    def to_modes(self, x: Tensor) -> Tensor:
        """Transform, keep the low modes, reorder."""
        spectrum = torch.fft.fft(torch.fft.rfft(x, dim=2)[:, :, : self.columns], dim=1)
        if self.rows < self.resolution:
            spectrum = torch.cat([spectrum[:, : self.modes], spectrum[:, -self.modes :]], dim=1)
        return torch.view_as_real(spectrum).permute(2, 1, 4, 0, 3).reshape(-1, 2, x.shape[0], x.shape[3])

    def to_image(self, modes: Tensor) -> Tensor:
        """Reorder, pad with zeros, transform."""
        _, _, B, C = modes.shape
        pairs = modes.view(self.columns, self.rows, 2, B, C).permute(3, 1, 0, 4, 2).contiguous()
        spectrum = torch.view_as_complex(pairs)
        if gap := self.resolution - self.rows:
            zeros = spectrum.new_zeros(B, gap, self.columns, C)
            spectrum = torch.cat([spectrum[:, : self.modes], zeros, spectrum[:, self.modes :]], dim=1)
        half = torch.view_as_real(torch.fft.ifft(spectrum, dim=1)) * self.has_imaginary
        return torch.fft.irfft(torch.view_as_complex(half), n=self.resolution, dim=2)


def truncated_fourier(modes: int, resolution: int, channels: int) -> TruncatedFourier:
    """Build the faster transform: matrices for at most 32 modes and no more modes than channels, else FFTs."""
    return (MatrixFourier if modes <= min(channels, MOST_MATRIX_MODES) else FFTFourier)(modes, resolution)


def _times_each(matrix: Tensor, stack: Tensor) -> Tensor:
    """Multiply a matrix (m, k) with each matrix of a stack (n, k, l): (n, m, l)."""
    return torch.bmm(matrix.expand(stack.shape[0], -1, -1), stack)  # len() would fix the batch in an export


def _waves(frequencies: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine waves, each float64 of shape (frequencies, resolution)."""
    pixels = torch.arange(resolution, dtype=torch.float64)
    phase = 2 * math.pi * torch.outer(frequencies, pixels) / resolution
    return phase.cos(), phase.sin()
