"""Layers that bound the size of activations; shapes (B, C, H, W) -> the same.

In float32, GELU is exactly 0 below about -5.5, and its gradient below about -14. A channel whose inputs are all in
that range is dead: no gradient revives it. A large optimiser step can push channels there. `RMSNorm2d` bounds the
input of a residual branch, `Limiter` the input of an activation. For results see docs/cure.md.
"""

import torch
from torch import Tensor, nn

EPS = 1e-6


class RMSNorm2d(nn.Module):
    """RMS norm h = g x / sqrt(mean(x^2) + 1e-6), with the mean over channels and pixels, and a gain g per channel.

    It normalises each sample. Placed before the branch of a residual block, it keeps the size of the branch's inputs
    constant, however large the residual stream is. Zhang and Sennrich 2019, "Root Mean Square Layer Normalization";
    the placement as in Xiong et al. 2020, "On Layer Normalization in the Transformer Architecture".
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set all gains to 1."""
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each sample."""
        scale = (x.square().mean(dim=(1, 2, 3), keepdim=True, dtype=torch.float32) + EPS).rsqrt()
        return x * scale * self.weight[:, None, None]


class Limiter(nn.Module):
    """Limit the root mean square of each sample to tau: z / sqrt(1 + mean(z^2) / tau^2).

    The mean is over channels and pixels. The layer is nearly the identity for z small compared with tau, and tau times
    an RMS norm without gains for large z. Whatever a step did to the weights, not all pre-activations of a sample can
    be far below -tau; those of a single channel can. Unlike a norm it does not amplify small values, and unlike tanh
    it keeps the direction of z.

    The layer was designed for this project. A similar one is logit soft-capping: Gemma Team 2024, "Gemma 2", section 2.

    Args:
        tau: upper bound of the root mean square, above 0.
    """

    def __init__(self, tau: float) -> None:
        super().__init__()
        self.tau = tau

    def forward(self, z: Tensor) -> Tensor:
        """Limit each sample."""
        return z * (1 + z.square().mean(dim=(1, 2, 3), keepdim=True, dtype=torch.float32) / self.tau**2).rsqrt()

    def extra_repr(self) -> str:
        """The bound, for print(network)."""
        return f"tau={self.tau:g}"
