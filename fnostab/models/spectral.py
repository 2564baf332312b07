"""Spectral convolution: learned mixing of channels, one matrix per low Fourier mode.

Li et al. 2021, "Fourier Neural Operator for Parametric Partial Differential Equations", eq. 5.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from fnostab.errors import ModelError

__all__ = ["SpectralConv2d"]


class SpectralConv2d(nn.Module):
    """Mix channels by a complex matrix at each low Fourier mode of a square image; drop the others.

    Kept are the ``modes`` lowest frequencies of each sign along the rows and the ``modes`` lowest
    along the columns (the input is real, so negative column frequencies follow). Weights are
    allocated only for modes that exist at ``resolution``; any others would never get a gradient.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        modes: frequencies kept along each axis, each sign of the rows.
        resolution: pixels along a side of input and output.

    Shapes: (B, in_channels, resolution, resolution) -> (B, out_channels, resolution, resolution),
    float32. ``weight`` is (in_channels, out_channels, rows, columns, 2), real and imaginary parts as
    pairs: optimisers, norms and counts then treat it as the real numbers that it is.
    """

    weight_unit_dim: ClassVar[int] = 1  # the weights of one output channel are a unit of gradient clipping

    def __init__(self, in_channels: int, out_channels: int, modes: int, resolution: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.modes = modes
        self.resolution = resolution
        rows = min(2 * modes, resolution)
        columns = min(modes, resolution // 2 + 1)
        self.weight = nn.Parameter(torch.empty(in_channels, out_channels, rows, columns, 2))

        # The zero and the Nyquist column of a real image's spectrum have no imaginary part after the
        # inverse transform of the rows. It is dropped here, as FFT libraries differ in what they do with it.
        has_imaginary = torch.ones(columns, 2)
        has_imaginary[0, 1] = 0
        if 2 * (columns - 1) == resolution:
            has_imaginary[-1, 1] = 0
        self.register_buffer("has_imaginary", has_imaginary, persistent=False)
        self.has_imaginary: Tensor
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw complex normal weights of mean square modulus 1 / in_channels: the variance is kept."""
        nn.init.normal_(self.weight, std=(2 * self.in_channels) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve.

        Raises:
            ModelError: ``x`` has other channels or another resolution than the layer was built for.
        """
        expected = (self.in_channels, self.resolution, self.resolution)
        if x.ndim != 4 or x.shape[1:] != expected:
            raise ModelError(f"SpectralConv2d: expected (B, {', '.join(map(str, expected))}), got {tuple(x.shape)}")
        rows, columns = self.weight.shape[2:4]
        dropped = self.resolution - rows
        spectrum = torch.fft.fft(torch.fft.rfft(x)[..., :columns], dim=-2)
        if dropped:
            spectrum = torch.cat([spectrum[..., : self.modes, :], spectrum[..., -self.modes :, :]], dim=-2)
        mixed = torch.einsum("bixy,ioxy->boxy", spectrum, torch.view_as_complex(self.weight))
        if dropped:
            gap = mixed.new_zeros(*mixed.shape[:2], dropped, columns)
            mixed = torch.cat([mixed[..., : self.modes, :], gap, mixed[..., self.modes :, :]], dim=-2)
        half = torch.view_as_real(torch.fft.ifft(mixed, dim=-2)) * self.has_imaginary
        return torch.fft.irfft(torch.view_as_complex(half), n=self.resolution)

    def extra_repr(self) -> str:
        """Sizes, for print(network)."""
        return f"{self.in_channels}, {self.out_channels}, modes={self.modes}, resolution={self.resolution}"
