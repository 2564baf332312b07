"""Layers that bound the size of activations; all map (B, C, H, W) to the same.

In float32 GELU is exactly 0 below about -5.5, and its gradient below about -14: a channel whose inputs all lie there is
dead, and no gradient brings it back. A large step of the optimiser can send channels there. `RMSNorm2d` bounds what
a residual branch reads, `Limiter` what an activation reads. docs/cure.md says what came of either.
"""

import torch
from torch import Tensor, nn

__all__ = ["Limiter", "RMSNorm2d"]


class RMSNorm2d(nn.Module):
    """h = g x / sqrt(mean(x^2) + eps), the mean over channels and pixels of each sample, g one gain a channel.

    Before the branch of a residual block: the branch sees inputs of one size however large the stream has grown.
    Zhang and Sennrich 2019, "Root Mean Square Layer Normalization"; before the branch as in Xiong et al. 2020, "On
    Layer Normalization in the Transformer Architecture".
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set all gains to 1."""
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each sample."""
        scale = (x.square().mean(dim=(1, 2, 3), keepdim=True, dtype=torch.float32) + self.eps).rsqrt()
        return x * scale * self.weight[:, None, None]


class Limiter(nn.Module):
    """z / sqrt(1 + mean(z^2) / tau^2), the mean over channels and pixels of each sample: its rms is below tau.

    Nearly the identity where z is small against tau, and tau times an RMSNorm without gains where it is large. So
    not all pre-activations of a sample can lie far below -tau, whatever a step did to the weights; those of one channel
    can. Unlike a norm it does not amplify what is small, and unlike a tanh it keeps the direction of z.

    This project's own. Close to it is logit soft-capping: Gemma Team 2024, "Gemma 2", section 2.

    Args:
        tau: bound of the root mean square, above 0.
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
