"""Custom network parts: blocks, decoder activations, and a head."""

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from fnostab.errors import ModelError
from fnostab.ptychography.models import ResidualBlock, SpectralConv2d
from fnostab.ptychography.models.norms import group_norm
from fnostab.ptychography.settings import ModelConfig

GROUP_CHANNELS = 4  # channels per group; with one, as in instance norm, channels lose their relative size
SLOPE = 0.01  # slope of the leak


class LeakyGELU(nn.Module):
    """Decoder activation GELU(x) + 0.01 x: close to GELU near 0, but with a gradient everywhere.

    The leak is that of Maas et al. 2013, "Rectifier Nonlinearities Improve Neural Network Acoustic Models". The
    activation has no dead zone, but is not bounded.
    """

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation elementwise."""
        return functional.gelu(x) + SLOPE * x


class LeakyBlock(ResidualBlock):
    """Residual block with `LeakyGELU` as activation."""

    def __init__(self, config: ModelConfig, channels: int, modes: int, resolution: int) -> None:
        super().__init__(config, channels, modes, resolution)
        self.act = LeakyGELU(config, channels)


class TanhBlock(ResidualBlock):
    """Residual block whose spectral convolution is applied to tanh(x), so that its input is bounded by 1.

    Proposed against overflow in half precision by White et al. 2023, "Guaranteed Approximation Bounds for
    Mixed-Precision Neural Operators", section 4.3.

    Raises:
        ModelError: ``spectral_weights`` is published, which is not supported.
    """

    def __init__(self, config: ModelConfig, channels: int, modes: int, resolution: int) -> None:
        if config.spectral_weights != "existing":
            raise ModelError(
                f"model.block={config.block}: it has no convolution of model.spectral_weights="
                f"{config.spectral_weights}: set existing"
            )
        super().__init__(config, channels, modes, resolution)
        self.spectral = _OfTanh(channels, channels, modes, resolution)


class _OfTanh(SpectralConv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.tanh())


class SkipInitBlock(ResidualBlock):
    """Residual block with one learned factor on its branch, initially 0: it starts as the identity, without a norm.

    SkipInit of De and Smith 2020, "Batch Normalization Biases Residual Blocks Towards the Identity Function", section
    4; equal to ReZero, Bachlechner et al. 2020.
    """

    def __init__(self, config: ModelConfig, channels: int, modes: int, resolution: int) -> None:
        super().__init__(config, channels, modes, resolution)
        self.gain = _Factor()

    def gain_magnitude(self) -> Tensor:
        """Absolute value of the factor, which trials record."""
        return self.gain.alpha.detach().abs()


class _Factor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(()))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.alpha)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.alpha


class DepthScaledBlock(ResidualBlock):
    """Residual block with its branch multiplied by 1 / sqrt(2 n), so that the sum of n branches does not grow with n.

    Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3, where 2 n is the number of
    branches in n blocks.
    """

    def __init__(self, config: ModelConfig, channels: int, modes: int, resolution: int) -> None:
        super().__init__(config, channels, modes, resolution)
        self.gain = _Scale(1 / math.sqrt(2 * config.fno_blocks))


class _Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class GroupNorm2d(nn.GroupNorm):
    """Affine group norm with groups of 4 channels if possible. Wu and He 2018, "Group Normalization"."""

    def __init__(self, channels: int) -> None:
        super().__init__(math.gcd(channels, max(1, channels // GROUP_CHANNELS)), channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each group of each sample: (B, C, H, W) -> the same."""
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class NormedGELU(nn.Sequential):
    """Decoder activation: group norm, then GELU."""

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__(OrderedDict(norm=GroupNorm2d(channels), act=nn.GELU()))


class Polar(nn.Module):
    """Head with softplus amplitude and phase pi tanh, which keeps the amplitude positive and the phase bounded."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()

    def forward(self, values: Tensor) -> Tensor:
        """Convert values of the last layer (B, 2, H, W) to complex patches (B, 1, H, W)."""
        first, second = values.chunk(2, dim=1)
        return torch.polar(functional.softplus(first), torch.pi * torch.tanh(second))
