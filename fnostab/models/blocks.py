"""The residual block of all built-in networks, and the two convolutions around the blocks."""

from collections import OrderedDict
from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fnostab.config import ModelConfig
from fnostab.errors import ModelError
from fnostab.models.spectral import SpectralConv2d

__all__ = [
    "InstanceNorm2d",
    "LayerScale",
    "ResidualBlock",
    "ZeroGammaInstanceNorm2d",
    "channels_last",
    "conv_gelu_conv",
    "residual_blocks",
]


class InstanceNorm2d(nn.InstanceNorm2d):
    """Affine instance norm that leaves its output in memory with its channels last.

    Computed as a group norm of one channel a group, which is faster than torch's instance norm, and with
    the pixels last: with the channels last torch takes the variance as a difference of two large numbers.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel of each sample: (B, C, H, W) -> the same."""
        B, C, H, W = x.shape
        # Not functional.group_norm, which asks for the layout, and that is refused under torch.func.vmap.
        y, _, _ = torch.native_group_norm(
            x.to(self.weight.dtype).contiguous(), self.weight, self.bias, B, C, H * W, C, self.eps
        )
        return y.movedim(1, -1).contiguous().movedim(-1, 1)


class ZeroGammaInstanceNorm2d(InstanceNorm2d):
    """Affine instance norm that starts, and is reset, at weight 0 and bias 0: its output is 0.

    Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 5.1, for batch norm.
    """

    def reset_parameters(self) -> None:
        """Set weight and bias to 0."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class LayerScale(nn.Module):
    """A learned factor per channel, small at first: (B, C, H, W) -> (B, C, H, W).

    Touvron et al. 2021, "Going deeper with Image Transformers", eq. 4.
    """

    def __init__(self, channels: int, init: float) -> None:
        super().__init__()
        self.init = init
        self.gamma = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set all factors to ``init``."""
        nn.init.constant_(self.gamma, self.init)

    def forward(self, x: Tensor) -> Tensor:
        """Scale each channel."""
        return x * self.gamma[:, None, None]


class ResidualBlock(nn.Module):
    """y = x + gain(GELU(SpectralConv(x) + Conv3x3(x))).

    Args:
        channels: of input and output.
        modes: Fourier modes kept along each axis.
        resolution: pixels along a side.
        residual: the gain. ``plain``: none. ``zero_gamma``: instance norm with weight and bias 0 at
            first, so that the block starts as the identity. ``layerscale``: instance norm, then a
            LayerScale that starts at ``layerscale_init``.
        layerscale_init: first factor of the LayerScale; unused by the others.
        checkpoint: keep only the input for the backward pass, which then computes the block a second
            time: less memory, the same gradients. Hooks of the block still run once, those of its parts twice.

    Shapes: (B, channels, resolution, resolution) -> the same, float32.
    """

    def __init__(
        self,
        channels: int,
        modes: int,
        resolution: int,
        residual: str = "plain",
        layerscale_init: float = 1e-3,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.spectral = SpectralConv2d(channels, channels, modes, resolution)
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.act = nn.GELU()
        self.gain = _gain(channels, residual, layerscale_init)

    def forward(self, x: Tensor) -> Tensor:
        """Add the gained branch to ``x``."""
        if not (self.checkpoint and torch.is_grad_enabled()):
            return self._add_branch(x)
        y: Tensor = checkpoint(self._add_branch, x, use_reentrant=False, preserve_rng_state=False)
        return y

    def _add_branch(self, x: Tensor) -> Tensor:
        return x + self.gain(self.act(self.spectral(x) + self.conv(x)))

    @classmethod
    def of(cls, config: ModelConfig, channels: int, modes: int, resolution: int) -> Self:
        """A block of that size, otherwise as ``config`` says."""
        return cls(channels, modes, resolution, config.residual, config.layerscale_init, config.checkpoint_blocks)

    def gain_magnitude(self) -> Tensor | None:
        """Mean absolute gain of the branch, a 0-d tensor on the block's device; None if it has no gain.

        Norm weight of ``zero_gamma``, LayerScale factor of ``layerscale``.
        """
        for module in self.gain.modules():
            if isinstance(module, ZeroGammaInstanceNorm2d):
                return module.weight.detach().abs().mean()
            if isinstance(module, LayerScale):
                return module.gamma.detach().abs().mean()
        return None


def _gain(channels: int, residual: str, layerscale_init: float) -> nn.Module:
    if residual == "plain":
        return nn.Identity()
    if residual == "zero_gamma":
        return ZeroGammaInstanceNorm2d(channels)
    if residual == "layerscale":
        norm = InstanceNorm2d(channels)
        return nn.Sequential(OrderedDict(norm=norm, layerscale=LayerScale(channels, layerscale_init)))
    raise ModelError(f"residual={residual!r} is not known; accepted: plain, zero_gamma, layerscale")


def channels_last(images: Tensor) -> Tensor:
    """Images of one channel (B, 1, H, W), as a view whose channels are the last axis in memory.

    What a network computes from it has that layout too: it suits convolutions and Fourier matrices.
    Torch's own way leaves one channel as it is, and is refused under ``torch.func.vmap``.
    """
    return images.squeeze(1).unsqueeze(-1).movedim(-1, 1)


def conv_gelu_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3x3 convolutions with a GELU between: (B, in_channels, H, W) -> (B, out_channels, H, W)."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1),
        nn.GELU(),
        nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1),
    )


def residual_blocks(module: nn.Module) -> dict[str, ResidualBlock]:
    """All residual blocks of a network, by qualified name, in the order in which they were registered."""
    return {name: block for name, block in module.named_modules() if isinstance(block, ResidualBlock)}
