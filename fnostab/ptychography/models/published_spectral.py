"""Spectral convolution of the published networks, reconstructed from their parameter counts.

It has a complex matrix for each of modes x modes frequencies, even those that do not exist at its resolution, and
keeps only non-negative frequencies of the rows.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fnostab.ptychography.models.spectral import without_autocast


class PublishedSpectralConv2d(nn.Module):
    """Mix channels by a complex matrix at each low Fourier mode with a non-negative row frequency; drop other modes.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        modes: frequencies kept along each axis, as far as they exist.

    Shapes: (B, in_channels, N, N) -> (B, out_channels, N, N), float32, for any N, in channels-last memory format.
    ``weight`` is complex64 of shape (in_channels, out_channels, modes, modes). Weights of modes that do not exist have
    zero gradients.
    """

    weight_unit_dim: ClassVar[int] = 1  # axis of output channels, the units of adaptive gradient clipping

    def __init__(self, in_channels: int, out_channels: int, modes: int) -> None:
        super().__init__()
        self.modes = modes
        self.weight = nn.Parameter(torch.empty(in_channels, out_channels, modes, modes, dtype=torch.complex64))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw complex normal weights with mean square modulus 1 / in_channels, as in `SpectralConv2d`."""
        nn.init.normal_(torch.view_as_real(self.weight), std=(2 * len(self.weight)) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the convolution."""
        height, width = x.shape[-2:]
        rows, columns = min(self.modes, height), min(self.modes, width // 2 + 1)
        with without_autocast(x.device):
            spectrum = torch.fft.rfft2(x.to(self.weight.real.dtype))
            low, weight = spectrum[..., :rows, :columns], self.weight[..., :rows, :columns]
            mixed = torch.einsum("bixy,ioxy->boxy", low, weight)
            dropped = (0, width // 2 + 1 - columns, 0, height - rows)
            image = torch.fft.irfft2(functional.pad(mixed, dropped), s=(height, width))
            return image.movedim(1, -1).contiguous().movedim(-1, 1)
