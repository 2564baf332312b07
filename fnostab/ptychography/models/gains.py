"""Gains that scale the branch of a residual block; shapes (B, C, H, W) -> the same."""

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

from fnostab.ptychography.models.norms import InstanceNorm2d

Residual = Literal["plain", "zero_gamma", "layerscale"]


class ZeroGammaInstanceNorm2d(InstanceNorm2d):
    """Affine instance norm initialised with weight 0 and bias 0, so that its output is 0.

    Proposed for batch norm by Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 5.1.
    """

    def reset_parameters(self) -> None:
        """Set weight and bias to 0."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class LayerScale(nn.Module):
    """Learned factor per channel, initialised with a small value.

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


def make_gain(residual: Residual, channels: int, layerscale_init: float) -> nn.Module:
    """Build the gain that ``residual`` names.

    Args:
        residual: ``plain``: identity. ``zero_gamma``: instance norm with initial weight and bias 0. ``layerscale``:
            instance norm, then a LayerScale with initial value ``layerscale_init``.
        channels: channels of the branch.
        layerscale_init: initial value, used by ``layerscale`` only.
    """
    if residual == "plain":
        return nn.Identity()
    if residual == "zero_gamma":
        return ZeroGammaInstanceNorm2d(channels)
    norm = InstanceNorm2d(channels)
    return nn.Sequential(OrderedDict(norm=norm, layerscale=LayerScale(channels, layerscale_init)))
