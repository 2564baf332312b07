"""Size of a network, and the memory that its training takes."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["TrainingSize", "parameter_count", "training_size"]


@dataclass(frozen=True)
class TrainingSize:
    """Parameters of a network, and bytes that one of its training steps holds.

    Attributes:
        parameters: real ones; a complex one counts as two.
        weight_bytes: of parameters and buffers.
        gradient_bytes: of their gradients.
        optimizer_bytes: of the optimiser's moments.
        activation_bytes: the most that a step holds besides those: what is kept for the backward pass,
            and what is made and dropped on the way.
    """

    parameters: int
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int

    @property
    def state_bytes(self) -> int:
        """Weights, gradients and optimiser together."""
        return self.weight_bytes + self.gradient_bytes + self.optimizer_bytes

    @property
    def total_bytes(self) -> int:
        """The state and the activations."""
        return self.state_bytes + self.activation_bytes


def parameter_count(module: nn.Module) -> int:
    """Number of real parameters; a complex one counts as two.

    Needs no memory if the network was built under ``torch.device("meta")``.
    """
    return sum(parameter.numel() * (2 if parameter.is_complex() else 1) for parameter in module.parameters())


def training_size(module: nn.Module, loss: Callable[[], Tensor], moments: int) -> TrainingSize:
    """Measure a network by one forward and backward pass, which on the meta device needs no memory.

    Every storage that an operation makes is counted from then until it is freed, once however many
    tensors view it. Memory that a kernel takes for itself, as an FFT's or a convolution's workspace,
    is not seen. Gradients that the module had are dropped.

    Args:
        module: all parameters that ``loss`` uses.
        loss: runs the forward pass and returns the scalar to be differentiated.
        moments: numbers that the optimiser keeps for each parameter: 2 for Adam.
    """
    module.zero_grad(set_to_none=True)
    owned = [*module.parameters(), *module.buffers()]
    with _LiveStorages(owned) as live:
        value = loss()
        in_forward, live.peak = live.peak, live.now
        value.backward()  # type: ignore[no-untyped-call]
    gradients = sum(p.grad.nbytes for p in module.parameters() if p.grad is not None)
    trained = sum(p.nbytes for p in module.parameters() if p.requires_grad)
    module.zero_grad(set_to_none=True)
    return TrainingSize(
        parameters=parameter_count(module),
        weight_bytes=sum(storage.nbytes() for storage in {tensor.untyped_storage() for tensor in owned}),
        gradient_bytes=gradients,
        optimizer_bytes=moments * trained,
        # The gradients of the step before are dropped only between the two passes.
        activation_bytes=max(in_forward, live.peak - gradients),
    )


class _LiveStorages(TorchDispatchMode):
    """Bytes of all storages made by operations under it that are not freed yet: ``now``, and at most: ``peak``.

    Args:
        owned: tensors that are not counted.
    """

    def __init__(self, owned: list[Tensor]) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._known = weakref.WeakSet(tensor.untyped_storage() for tensor in owned)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._freed, storage.nbytes())

    def _freed(self, n_bytes: int) -> None:
        self.now -= n_bytes
