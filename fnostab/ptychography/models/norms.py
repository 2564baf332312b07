"""Norms over the pixels of each sample, for networks whose channels are last in memory."""

import torch
from torch import Tensor, nn

__all__ = ["InstanceNorm2d", "group_norm"]


class InstanceNorm2d(nn.InstanceNorm2d):
    """Affine instance norm that leaves its output in memory with its channels last.

    Computed as a group norm of one channel a group, which is faster than torch's instance norm.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel of each sample: (B, C, H, W) -> the same."""
        return group_norm(x, x.shape[1], self.weight, self.bias, self.eps)


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Group norm with the pixels last: with channels last torch's variance is a difference of two large numbers.

    Shapes: x (B, C, H, W), weight and bias (C,) -> (B, C, H, W), its channels last in memory.
    """
    B, C, H, W = x.shape
    # Not functional.group_norm, which asks for the layout, and that is refused under torch.func.vmap.
    y, _, _ = torch.native_group_norm(x.to(weight.dtype).contiguous(), weight, bias, B, C, H * W, groups, eps)
    return y.movedim(1, -1).contiguous().movedim(-1, 1)
