"""Transform square images to their low Fourier modes and back, by products with small real matrices.

They compute only the kept modes, need no complex numbers, and return the modes in the order of the channel mixing.
With more modes than channels an FFT would be faster; no built-in network has so many.

Channels are the last axis, here and in the memory of the whole network. Each transform is then a single matrix
product, and convolutions on a CPU are faster too.
"""

import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor


class TruncatedFourier:
    """Transform of images with ``resolution`` pixels per side to their low Fourier modes and back, axis by axis.

    The ``modes`` lowest frequencies of each sign are kept along the rows, and the ``modes`` lowest along the columns,
    as far as they exist. Negative column frequencies of a real image follow from the others.

    Attributes:
        rows: number of row frequencies: 0 to ``modes`` - 1, then -``modes`` to -1.
        columns: number of column frequencies: 0 to ``modes`` - 1.
    """

    def __init__(self, modes: int, resolution: int) -> None:
        self.resolution = resolution
        self.rows = min(2 * modes, resolution)
        self.columns = min(modes, resolution // 2 + 1)
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
        """Transform images (B, resolution, resolution, C) to modes (columns * rows, real and imaginary, B, C)."""
        B, N, _, C = x.shape
        columns = _times_each(self.to_columns, x.reshape(B * N, N, C))  # first, which leaves the least for the rows
        modes = _times_each(self.to_rows, columns.view(B, 2 * N, self.columns * C))
        return modes.view(B, 2, self.rows, self.columns, C).permute(3, 2, 1, 0, 4).reshape(-1, 2, B, C)

    def to_image(self, modes: Tensor) -> Tensor:
        """Transform modes (columns * rows, real and imaginary, B, C) to images (B, resolution, resolution, C)."""
        _, _, B, C = modes.shape
        N = self.resolution
        modes = modes.view(self.columns, self.rows, 2, B, C).permute(3, 2, 1, 0, 4)
        columns = _times_each(self.from_rows, modes.reshape(B, 2 * self.rows, self.columns * C))
        return _times_each(self.from_columns, columns.view(B * N, 2 * self.columns, C)).view(B, N, N, C)

    def apply(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to all constants, as `torch.nn.Module` does to its buffers, e.g. to change the device."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, change(value))
        return self


def _times_each(matrix: Tensor, stack: Tensor) -> Tensor:
    """Multiply a matrix (m, k) with each matrix of a stack (n, k, l): (n, m, l)."""
    return torch.bmm(matrix.expand(stack.shape[0], -1, -1), stack)  # len() would fix the batch in an export


def _waves(frequencies: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine waves, each float64 of shape (frequencies, resolution)."""
    pixels = torch.arange(resolution, dtype=torch.float64)
    phase = 2 * math.pi * torch.outer(frequencies, pixels) / resolution
    return phase.cos(), phase.sin()
