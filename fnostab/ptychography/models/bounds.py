"""Layers that keep the input of an activation within bounds.

GELU and its gradient are exactly 0 in float32 below about -14: a channel whose inputs all lie there is dead, and no
gradient brings it back. One bad step of Adam can throw every channel there. Each part here takes one link
out of that chain; all map (B, C, H, W) to the same. docs/cure.md says which of them helps.
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

    Nearly the identity where z is small against tau, and a norm without parameters where it is large: pre-activations
    can't leave for the dead zone of their activation together, whatever a step did to the weights. Unlike a norm it
    does not amplify what is small, and unlike a tanh it keeps the direction of z.

    This project's own; near to it are logit soft-capping (Gemma Team 2024, "Gemma 2", section 2) and RMSNorm, its
    limit for a small tau.

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
