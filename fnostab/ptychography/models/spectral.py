"""Spectral convolution: learned mixing of channels, one matrix per low Fourier mode.

Li et al. 2021, "Fourier Neural Operator for Parametric Partial Differential Equations", eq. 5.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from fnostab.errors import ModelError
from fnostab.ptychography.models.fourier import TruncatedFourier


class SpectralConv2d(nn.Module):
    """Mix channels by a complex matrix at each low Fourier mode of a square image; drop other modes.

    The ``modes`` lowest frequencies of each sign are kept along the rows, and the ``modes`` lowest along the columns
    (the input is real, so negative column frequencies follow). Weights are allocated only for modes that exist at
    ``resolution``; others would never get a gradient.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        modes: frequencies kept along each axis, per sign of the rows.
        resolution: pixels along a side of input and output.

    Shapes: (B, in_channels, resolution, resolution) -> (B, out_channels, resolution, resolution), float32, in
    channels-last memory format. ``weight`` is real, of shape (columns, rows, in_channels, 2, out_channels), with real
    before imaginary parts. Optimisers, norms and parameter counts therefore need no complex numbers, and the mixing is
    one batched product of real matrices without copies of the weights.
    """

    weight_unit_dim: ClassVar[int] = 4  # axis of output channels, the units of adaptive gradient clipping

    def __init__(self, in_channels: int, out_channels: int, modes: int, resolution: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.modes = modes
        self.resolution = resolution
        self.fourier = TruncatedFourier(modes, resolution)
        self.weight = nn.Parameter(torch.empty(self.fourier.columns, self.fourier.rows, in_channels, 2, out_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw complex normal weights with mean square modulus 1 / in_channels, which preserves the variance."""
        nn.init.normal_(self.weight, std=(2 * self.in_channels) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the convolution.

        Raises:
            ModelError: ``x`` does not have the channels and resolution that the layer was built for.
        """
        expected = (self.in_channels, self.resolution, self.resolution)
        if x.ndim != 4 or x.shape[1:] != expected:
            raise ModelError(f"SpectralConv2d: expected (B, {', '.join(map(str, expected))}), got {tuple(x.shape)}")
        with without_autocast(x.device):  # sums over a whole image need full precision
            modes = self._mix(self.fourier.to_modes(x.to(self.weight.dtype).movedim(1, -1)))
            return self.fourier.to_image(modes).movedim(-1, 1)

    def _mix(self, modes: Tensor) -> Tensor:
        """Apply a complex matrix at each of M modes: (M, 2, B, in_channels) -> (M, 2, B, out_channels)."""
        M, _, B, _ = modes.shape
        # All four products of real and imaginary parts at once.
        weight = self.weight.view(M, self.in_channels, 2 * self.out_channels)
        products = torch.bmm(modes.reshape(M, 2 * B, self.in_channels), weight)
        of_real, of_imaginary = products.view(M, 2, B, 2, self.out_channels).unbind(1)
        real_real, real_imaginary = of_real.unbind(2)
        imaginary_real, imaginary_imaginary = of_imaginary.unbind(2)
        return torch.stack((real_real - imaginary_imaginary, real_imaginary + imaginary_real), dim=1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.fourier.apply(fn)  # not a module, so that this layer has no children and is initialised as a whole
        return super()._apply(fn, recurse)

    def extra_repr(self) -> str:
        """Sizes, for print(network)."""
        return f"{self.in_channels}, {self.out_channels}, modes={self.modes}, resolution={self.resolution}"


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Context that disables autocast on ``device``."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()  # the meta device has none
