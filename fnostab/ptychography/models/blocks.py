"""The residual block of all built-in networks, and the convolutions around the blocks."""

from collections import OrderedDict
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from fnostab.ptychography.models.bounds import LeakyGELU, Limiter, RMSNorm2d
from fnostab.ptychography.models.gains import LayerScale, SkipInit, ZeroGammaInstanceNorm2d, make_gain
from fnostab.ptychography.models.norms import GroupNorm2d
from fnostab.ptychography.models.published_spectral import PublishedSpectralConv2d
from fnostab.ptychography.models.spectral import SpectralConv2d
from fnostab.ptychography.settings import ModelConfig

__all__ = [
    "ResidualBlock",
    "channels_last",
    "conv_gelu_conv",
    "decoder_activation",
    "decoder_stage",
    "head_to_patch",
    "residual_blocks",
]


class ResidualBlock(nn.Module):
    """y = x + gain(act(limiter(SpectralConv(stabiliser(norm(x))) + Conv3x3(norm(x))))).

    Every part but the two convolutions and the activation is absent unless asked for: the plain block is
    y = x + GELU(SpectralConv(x) + Conv3x3(x)).

    Args:
        channels: of input and output.
        modes: Fourier modes kept along each axis.
        resolution: pixels along a side.
        residual: the gain, as `fnostab.ptychography.models.gains.make_gain` takes it.
        layerscale_init: first factor of a LayerScale.
        n_blocks: of the network, for ``residual`` depth.
        pre_norm: put an `RMSNorm2d` before the branch.
        limiter_tau: put a `Limiter` before the activation.
        leaky: let the activation be a `LeakyGELU`.
        stabiliser: put a tanh before the spectral convolution.
        published: take a `PublishedSpectralConv2d` in place of a `SpectralConv2d`.
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
        *,
        n_blocks: int = 1,
        pre_norm: bool = False,
        limiter_tau: float | None = None,
        leaky: bool = False,
        stabiliser: bool = False,
        published: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.norm = RMSNorm2d(channels) if pre_norm else nn.Identity()
        # Against overflow in half precision: White et al. 2023, "Guaranteed Approximation Bounds for
        # Mixed-Precision Neural Operators", section 4.3; what the spectral branch sees is bounded by 1.
        self.stabiliser = nn.Tanh() if stabiliser else nn.Identity()
        self.spectral: nn.Module
        if published:
            self.spectral = PublishedSpectralConv2d(channels, channels, modes)
        else:
            self.spectral = SpectralConv2d(channels, channels, modes, resolution)
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.limiter = nn.Identity() if limiter_tau is None else Limiter(limiter_tau)
        self.act = LeakyGELU() if leaky else nn.GELU()
        self.gain = make_gain(residual, channels, layerscale_init, n_blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Add the gained branch to ``x``."""
        if not (self.checkpoint and torch.is_grad_enabled()):
            return self._add_branch(x)
        y: Tensor = checkpoint(self._add_branch, x, use_reentrant=False, preserve_rng_state=False)
        return y

    def _add_branch(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        z = self.spectral(self.stabiliser(h)) + self.conv(h)
        return x + self.gain(self.act(self.limiter(z)))

    @classmethod
    def of(cls, config: ModelConfig, channels: int, modes: int, resolution: int) -> Self:
        """A block of that size, otherwise as ``config`` says."""
        return cls(
            channels,
            modes,
            resolution,
            config.residual,
            config.layerscale_init,
            config.checkpoint_blocks,
            n_blocks=config.fno_blocks,
            pre_norm=config.pre_norm == "rms",
            limiter_tau=config.limiter_tau if config.limiter in ("blocks", "both") else None,
            leaky=config.leaky in ("blocks", "both"),
            stabiliser=config.stabiliser == "tanh",
            published=config.spectral_weights == "published",
        )

    def gain_magnitude(self) -> Tensor | None:
        """Mean absolute gain of the branch, a 0-d tensor on the block's device; None if it has no gain.

        Norm weight of ``zero_gamma``, LayerScale factor of ``layerscale``, the one factor of ``skipinit``.
        """
        for module in self.gain.modules():
            if isinstance(module, ZeroGammaInstanceNorm2d):
                return module.weight.detach().abs().mean()
            if isinstance(module, LayerScale):
                return module.gamma.detach().abs().mean()
            if isinstance(module, SkipInit):
                return module.alpha.detach().abs()
        return None


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


def decoder_activation(config: ModelConfig, channels: int) -> OrderedDict[str, nn.Module]:
    """The decoder's activation with what ``config`` puts before it, by name; the activation's is "1"."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if config.decoder_norm == "group":
        parts["norm"] = GroupNorm2d(channels)
    if config.limiter in ("decoder", "both"):
        parts["limiter"] = Limiter(config.limiter_tau)
    parts["1"] = LeakyGELU() if config.leaky in ("decoder", "both") else nn.GELU()
    return parts


def decoder_stage(config: ModelConfig, in_channels: int, out_channels: int) -> nn.Sequential:
    """Build `conv_gelu_conv` with the decoder's activation; the convolutions keep their names, "0" and "2"."""
    first, _, second = conv_gelu_conv(in_channels, out_channels)
    return nn.Sequential(OrderedDict([("0", first), *decoder_activation(config, out_channels).items(), ("2", second)]))


def head_to_patch(head: str, values: Tensor) -> Tensor:
    """The complex patch (B, 1, H, W) of what the head gives, (B, 2, H, W).

    Args:
        head: ``real_imaginary``: the two parts. ``polar``: softplus of the first as the amplitude and pi tanh of the
            second as the phase, both of which a network can hold in bounds.
        values: of the head.
    """
    first, second = values.chunk(2, dim=1)
    if head == "polar":
        return torch.polar(functional.softplus(first), torch.pi * torch.tanh(second))
    return torch.complex(first, second)


def residual_blocks(module: nn.Module) -> dict[str, ResidualBlock]:
    """All residual blocks of a network, by qualified name, in the order in which they were registered."""
    return {name: block for name, block in module.named_modules() if isinstance(block, ResidualBlock)}
