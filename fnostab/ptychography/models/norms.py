"""Norms over the pixels of each sample, for networks whose channels are last in memory."""

import math

import torch
from torch import Tensor, nn

__all__ = ["GroupNorm2d", "InstanceNorm2d"]

GROUP_CHANNELS = 4  # in a group: a channel by itself, as of an instance norm, loses its size against the others


class InstanceNorm2d(nn.InstanceNorm2d):
    """Affine instance norm that leaves its output in memory with its channels last.

    Computed as a group norm of one channel a group, which is faster than torch's instance norm.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel of each sample: (B, C, H, W) -> the same."""
        return _group_norm(x, x.shape[1], self.weight, self.bias, self.eps)


class GroupNorm2d(nn.GroupNorm):
    """Affine group norm over groups of 4 channels, as far as they divide; its output has its channels last in memory.

    Wu and He 2018, "Group Normalization".
    """

    def __init__(self, channels: int) -> None:
        super().__init__(math.gcd(channels, max(1, channels // GROUP_CHANNELS)), channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each group of each sample: (B, C, H, W) -> the same."""
        return _group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def _group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Group norm with the pixels last: with channels last torch's variance is a difference of two large numbers."""
    B, C, H, W = x.shape
    # Not functional.group_norm, which asks for the layout, and that is refused under torch.func.vmap.
    y, _, _ = torch.native_group_norm(x.to(weight.dtype).contiguous(), weight, bias, B, C, H * W, groups, eps)
    return y.movedim(1, -1).contiguous().movedim(-1, 1)
