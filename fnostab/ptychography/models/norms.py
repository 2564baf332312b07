"""Instance and group norm for networks in channels-last memory format."""

import torch
from torch import Tensor, nn


class InstanceNorm2d(nn.InstanceNorm2d):
    """Affine instance norm with channels-last output.

    It is computed as a group norm with one channel per group, which is faster than torch's instance norm.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel of each sample: (B, C, H, W) -> the same."""
        return group_norm(x, x.shape[1], self.weight, self.bias, self.eps)


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Group norm computed on contiguous input: on channels-last input torch's variance suffers from cancellation.

    Shapes: x (B, C, H, W), weight and bias (C,) -> (B, C, H, W) in channels-last memory format.
    """
    B, C, H, W = x.shape
    # Not functional.group_norm, which queries the memory format; torch.func.vmap does not support that.
    y, _, _ = torch.native_group_norm(x.to(weight.dtype).contiguous(), weight, bias, B, C, H * W, groups, eps)
    return y.movedim(1, -1).contiguous().movedim(-1, 1)
