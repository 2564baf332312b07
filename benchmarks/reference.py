"""The layout of weights of the reference's hybrid network, to be counted on the meta device, and its spectral layer.

Its spectral convolution keeps the rows of one sign and allocates modes x modes complex weights at every level,
though at resolution r only min(modes, r) x min(modes, r // 2 + 1) modes exist, and its channels double at every
block. Where the resolution can't be halved any more, the way up is a 1x1 convolution in place of a 2x2 one.
"""

from itertools import pairwise

import torch
from torch import nn

from fnostab.ptychography.models.blocks import conv_gelu_conv

CHANNELS = 32
MODES = 12
N = 64
FLOOR = 4  # of the resolution, where N / 2^(blocks - 1) does not exist


class ReferenceSpectralConv(nn.Module):
    """Multiplies the rows of one sign, as far as they exist, by a complex matrix a mode; (B, C, N, N) -> the same."""

    def __init__(self, in_channels, out_channels, modes):
        super().__init__()
        self.modes = modes
        weight = torch.randn(in_channels, out_channels, modes, modes, dtype=torch.complex64)
        self.weight = nn.Parameter(weight * in_channels**-0.5)

    def forward(self, x):
        spectrum = torch.fft.rfft2(x)
        rows, columns = (min(self.modes, size) for size in spectrum.shape[2:])
        mixed = torch.zeros(len(x), self.weight.shape[1], *spectrum.shape[2:], dtype=spectrum.dtype, device=x.device)
        low, weight = spectrum[:, :, :rows, :columns], self.weight[:, :, :rows, :columns]
        mixed[:, :, :rows, :columns] = torch.einsum("bixy,ioxy->boxy", low, weight)
        return torch.fft.irfft2(mixed, s=x.shape[2:])


class ReferenceBlock(nn.Module):
    """Weights of y = x + GELU(Spectral(x) + Conv3x3(x)) at ``modes`` x ``modes`` complex modes."""

    def __init__(self, channels, modes):
        super().__init__()
        self.spectral = nn.Parameter(torch.empty(channels, channels, modes, modes, dtype=torch.complex64))
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1)


class ReferenceHybrid(nn.Module):
    """Weights of lifter, encoder, bottleneck with half the modes, decoder and head."""

    def __init__(self, blocks, cap=None):
        super().__init__()
        widths = [min(CHANNELS << level, cap or CHANNELS << level) for level in range(blocks)]
        floor = FLOOR if N >> (blocks - 1) == 0 else 1
        kernels = [2 if N >> (level + 1) >= floor else 1 for level in range(blocks - 1)]
        self.lifter = conv_gelu_conv(1, CHANNELS)
        self.encoder = nn.ModuleList(ReferenceBlock(width, MODES) for width in widths)
        self.bottleneck = ReferenceBlock(widths[-1], MODES // 2)
        self.down = nn.ModuleList(nn.Conv2d(a, b, kernel_size=3, padding=1) for a, b in pairwise(widths))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(b, a, kernel_size=kernel)
            for kernel, (a, b) in zip(kernels, pairwise(widths), strict=True)
        )
        self.decoder = nn.ModuleList(conv_gelu_conv(2 * width, width) for width in widths[:-1])
        self.head = nn.Conv2d(CHANNELS, 2, kernel_size=1)


def reference_hybrid(blocks, cap=None):
    """The network's weights on the meta device: shapes, no memory."""
    with torch.device("meta"):
        return ReferenceHybrid(blocks, cap)


def complex_as_one(module):
    """Number of parameters, as it was published: a complex one counts as one."""
    return sum(parameter.numel() for parameter in module.parameters())


def training_bytes(module):
    """Of weights, gradients and Adam's two moments."""
    return 4 * sum(parameter.nbytes for parameter in module.parameters())
