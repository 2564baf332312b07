"""How large a network is."""

from torch import nn

__all__ = ["parameter_count"]


def parameter_count(module: nn.Module) -> int:
    """Number of real parameters; a complex one counts as two.

    Needs no memory if the network was built under ``torch.device("meta")``.
    """
    return sum(parameter.numel() * (2 if parameter.is_complex() else 1) for parameter in module.parameters())
