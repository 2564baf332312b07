"""One optimiser step as a callback sees it, without waiting for the device."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["Step", "gradients_of", "tensor_norms_of"]


@dataclass(frozen=True)
class Step:
    """One optimiser step as it was seen: 0-d tensors on the device, until its block is read.

    Attributes:
        loss: mean over the step's micro-batches; None if it was not seen.
        norm: of the gradient before clipping.
        clipped: of the gradient after clipping.
        fraction: share of units that were clipped, None if the module does not say.
        learning_rate: of the first parameter group.
        tensor_norms: of the gradient of each parameter that has one, before clipping; () if they are of
            several kinds.
    """

    loss: Tensor | None
    norm: Tensor
    clipped: Tensor
    fraction: Tensor | None
    learning_rate: float | Tensor
    tensor_norms: tuple[Tensor, ...] = ()

    def numbers(self) -> Tensor:
        """Norm, clipped norm, loss and fraction; 0 for what was not seen."""
        unseen = torch.zeros_like(self.norm)
        loss = unseen if self.loss is None else self.loss
        fraction = unseen if self.fraction is None else self.fraction.to(self.norm)
        return torch.stack((self.norm, self.clipped, loss, fraction))


def gradients_of(optimizer: Optimizer) -> list[Tensor]:
    """The gradients that the optimiser is about to use, in the order of its parameters."""
    return [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def tensor_norms_of(gradients: list[Tensor]) -> tuple[Tensor, ...]:
    """As `get_total_norm` takes them, so that nobody has to take them again; () if it would have to group them."""
    kinds = {(gradient.device, gradient.dtype, gradient.is_sparse) for gradient in gradients}
    return () if len(kinds) != 1 or kinds.pop()[2] else tuple(torch._foreach_norm(gradients))
