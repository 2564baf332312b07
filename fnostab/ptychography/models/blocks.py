"""Residual block of the built-in networks, and the convolutions around the blocks."""

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fnostab.ptychography.models.bounds import Limiter, RMSNorm2d
from fnostab.ptychography.models.gains import LayerScale, ZeroGammaInstanceNorm2d, make_gain
from fnostab.ptychography.models.published_spectral import PublishedSpectralConv2d
from fnostab.ptychography.models.spectral import SpectralConv2d
from fnostab.ptychography.settings import ModelConfig
from fnostab.ptychography.user_parts import is_own, make_own


class ResidualBlock(nn.Module):
    """Residual block y = x + gain(act(limiter(SpectralConv(norm(x)) + Conv3x3(norm(x))))).

    Norm, limiter and gain are identities unless configured: the plain block is
    y = x + GELU(SpectralConv(x) + Conv3x3(x)). A custom block may be a subclass that replaces parts.

    Args:
        config: parts of the block. With ``checkpoint_blocks`` only the input is kept for the backward pass, which
            recomputes the block: less memory, the same gradients. Hooks of the block still run once, hooks of its
            parts twice.
        channels: channels of input and output.
        modes: Fourier modes kept along each axis.
        resolution: pixels along a side.

    Shapes: (B, channels, resolution, resolution) -> the same, float32.
    """

    def __init__(self, config: ModelConfig, channels: int, modes: int, resolution: int) -> None:
        super().__init__()
        self.checkpoint = config.checkpoint_blocks
        self.norm = RMSNorm2d(channels) if config.pre_norm == "rms" else nn.Identity()
        self.spectral: nn.Module
        if config.spectral_weights == "published":
            self.spectral = PublishedSpectralConv2d(channels, channels, modes)
        else:
            self.spectral = SpectralConv2d(channels, channels, modes, resolution)
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.limiter = Limiter(config.limiter_tau) if config.limiter in ("blocks", "both") else nn.Identity()
        self.act: nn.Module = nn.GELU()
        self.gain = make_gain(config.residual, channels, config.layerscale_init)

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch, multiplied by its gain, to ``x``."""
        if not (self.checkpoint and torch.is_grad_enabled()):
            return self._add_branch(x)
        y: Tensor = checkpoint(self._add_branch, x, use_reentrant=False, preserve_rng_state=False)
        return y

    def _add_branch(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        z = self.spectral(h) + self.conv(h)
        return x + self.gain(self.act(self.limiter(z)))

    def gain_magnitude(self) -> Tensor | None:
        """Mean absolute gain of the branch, a 0-d tensor on the block's device; None without a gain.

        The gain is the norm weight for ``zero_gamma`` and the LayerScale factor for ``layerscale``.
        """
        for module in self.gain.modules():
            if isinstance(module, ZeroGammaInstanceNorm2d):
                return module.weight.detach().abs().mean()
            if isinstance(module, LayerScale):
                return module.gamma.detach().abs().mean()
        return None


def make_block(config: ModelConfig, channels: int, modes: int, resolution: int) -> nn.Module:
    """Build a `ResidualBlock`, or the custom block that ``config.block`` names."""
    if is_own(config.block):
        return make_own("model.block", config.block, nn.Module, config, channels, modes, resolution)
    return ResidualBlock(config, channels, modes, resolution)


def channels_last(images: Tensor) -> Tensor:
    """View single-channel images (B, 1, H, W) in channels-last memory format.

    The network's activations then have this layout too, which is faster for convolutions and Fourier matrices.
    ``torch.channels_last`` does not change a single channel, and fails under ``torch.func.vmap``.
    """
    return images.squeeze(1).unsqueeze(-1).movedim(-1, 1)


def conv_gelu_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """Build two 3x3 convolutions with a GELU between: (B, in_channels, H, W) -> (B, out_channels, H, W)."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1),
        nn.GELU(),
        nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1),
    )


def decoder_activation(config: ModelConfig, channels: int) -> OrderedDict[str, nn.Module]:
    """Build the decoder's activation, named "1", with an optional limiter before it."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if config.limiter in ("decoder", "both"):
        parts["limiter"] = Limiter(config.limiter_tau)
    own = config.decoder_activation
    parts["1"] = make_own("model.decoder_activation", own, nn.Module, config, channels) if is_own(own) else nn.GELU()
    return parts


def decoder_stage(config: ModelConfig, in_channels: int, out_channels: int) -> nn.Sequential:
    """Build `conv_gelu_conv` with the decoder's activation; the convolutions keep the names "0" and "2"."""
    first, _, second = conv_gelu_conv(in_channels, out_channels)
    return nn.Sequential(OrderedDict([("0", first), *decoder_activation(config, out_channels).items(), ("2", second)]))


def make_head(config: ModelConfig) -> Callable[[Tensor], Tensor]:
    """Build the head, which turns the last layer's values (B, 2, H, W) into complex patches (B, 1, H, W)."""
    return make_own("model.head", config.head, nn.Module, config) if is_own(config.head) else _real_imaginary


def _real_imaginary(values: Tensor) -> Tensor:
    return torch.complex(*values.chunk(2, dim=1))


def residual_blocks(module: nn.Module) -> dict[str, ResidualBlock]:
    """All residual blocks of a network by qualified name, in registration order."""
    return {name: block for name, block in module.named_modules() if isinstance(block, ResidualBlock)}
