"""Parts of networks: blocks, activations of the decoder, and a head."""

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from fnostab.errors import ModelError
from fnostab.ptychography.models import ResidualBlock, SpectralConv2d
from fnostab.ptychography.models.norms import group_norm
from fnostab.ptychography.settings import ModelConfig

GROUP_CHANNELS = 4  # in a group: a channel by itself, as of an instance norm, loses its size against the others
SLOPE = 0.01  # of the leak


class LeakyGELU(nn.Module):
    """GELU(x) + 0.01 x: as GELU near 0, but with a gradient everywhere; of a decoder.

    The leak is that of Maas et al. 2013, "Rectifier Nonlinearities Improve Neural Network Acoustic Models". It has no
    dead zone, and no bound either.
    """

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Apply to each element."""
        return functional.gelu(x) + SLOPE * x


class LeakyBlock(ResidualBlock):
    """A block whose activation leaks."""

    def __init__(self, config: ModelConfig, channels: int, modes: int, resolution: int) -> None:
        super().__init__(config, channels, modes, resolution)
        self.act = LeakyGELU(config, channels)


class TanhBlock(ResidualBlock):
    """A block whose spectral convolution sees tanh(x), so that what it takes in is bounded by 1.

    Against overflow in half precision: White et al. 2023, "Guaranteed Approximation Bounds for Mixed-Precision Neural
    Operators", section 4.3.

    Raises:
        ModelError: ``spectral_weights`` is published, for which it has no convolution.
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
    """A block whose branch has one learned factor, 0 at first: it starts as the identity, without a norm.

    De and Smith 2020, "Batch Normalization Biases Residual Blocks Towards the Identity Function", section 4;
    the same as ReZero, Bachlechner et al. 2020.
    """

    def __init__(self, config: ModelConfig, channels: int, modes: int, resolution: int) -> None:
        super().__init__(config, channels, modes, resolution)
        self.gain = _Factor()

    def gain_magnitude(self) -> Tensor:
        """The factor's absolute value, which trials record."""
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
    """A block whose branch is multiplied by 1 / sqrt(2 n): what n branches add does not grow with their number.

    Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3, where 2 n counts the
    branches of n blocks.
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
    """Affine group norm over groups of 4 channels, as far as they divide. Wu and He 2018, "Group Normalization"."""

    def __init__(self, channels: int) -> None:
        super().__init__(math.gcd(channels, max(1, channels // GROUP_CHANNELS)), channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each group of each sample: (B, C, H, W) -> the same."""
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class NormedGELU(nn.Sequential):
    """GELU of what a group norm gives; of a decoder."""

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__(OrderedDict(norm=GroupNorm2d(channels), act=nn.GELU()))


class Polar(nn.Module):
    """A head of softplus amplitude and pi tanh phase, both of which a network can hold in bounds."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()

    def forward(self, values: Tensor) -> Tensor:
        """Values of the last layer (B, 2, H, W) -> complex patch (B, 1, H, W)."""
        first, second = values.chunk(2, dim=1)
        return torch.polar(functional.softplus(first), torch.pi * torch.tanh(second))
