"""Gains of a residual block, which multiply its branch before it is added: (B, C, H, W) -> the same."""

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from fnostab.errors import ModelError
from fnostab.ptychography.models.norms import InstanceNorm2d

__all__ = ["RESIDUALS", "LayerScale", "Scale", "SkipInit", "ZeroGammaInstanceNorm2d", "make_gain"]

RESIDUALS = ("plain", "zero_gamma", "layerscale", "depth", "skipinit")


class ZeroGammaInstanceNorm2d(InstanceNorm2d):
    """Affine instance norm that starts, and is reset, at weight 0 and bias 0: its output is 0.

    Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 5.1, for batch norm.
    """

    def reset_parameters(self) -> None:
        """Set weight and bias to 0."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class LayerScale(nn.Module):
    """A learned factor per channel, small at first.

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


class SkipInit(nn.Module):
    """One learned factor, 0 at first, so that the block starts as the identity; no norm.

    De and Smith 2020, "Batch Normalization Biases Residual Blocks Towards the Identity Function", section 4;
    the same as ReZero, Bachlechner et al. 2020.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the factor to 0."""
        nn.init.zeros_(self.alpha)

    def forward(self, x: Tensor) -> Tensor:
        """Scale everything."""
        return x * self.alpha


class Scale(nn.Module):
    """A factor that is not learned."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Scale everything."""
        return x * self.factor


def make_gain(residual: str, channels: int, layerscale_init: float, n_blocks: int) -> nn.Module:
    """The gain that ``residual`` names.

    Args:
        residual: ``plain``: none. ``zero_gamma``: instance norm with weight and bias 0 at first. ``layerscale``:
            instance norm, then a LayerScale that starts at ``layerscale_init``. ``skipinit``: a SkipInit.
            ``depth``: the constant 1 / sqrt(2 n_blocks), by which the variance that n_blocks branches add does not
            grow with their number (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners",
            section 2.3, where 2 n_blocks counts the branches of n_blocks blocks).
        channels: of the branch.
        layerscale_init: unused by the others.
        n_blocks: of the network; unused by the others than ``depth``.

    Raises:
        ModelError: ``residual`` is not known.
    """
    if residual == "plain":
        return nn.Identity()
    if residual == "zero_gamma":
        return ZeroGammaInstanceNorm2d(channels)
    if residual == "layerscale":
        norm = InstanceNorm2d(channels)
        return nn.Sequential(OrderedDict(norm=norm, layerscale=LayerScale(channels, layerscale_init)))
    if residual == "depth":
        return Scale(1 / math.sqrt(2 * n_blocks))
    if residual == "skipinit":
        return SkipInit()
    raise ModelError(f"residual={residual!r} is not known; accepted: {', '.join(RESIDUALS)}")
