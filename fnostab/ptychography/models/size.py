"""Size of a network, and the memory that its training needs."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fnostab.ptychography.estimates import TrainingSize


def parameter_count(module: nn.Module) -> int:
    """Number of real parameters; a complex parameter counts as two.

    Build the network under ``torch.device("meta")`` to count without allocating memory.
    """
    return sum(parameter.numel() * (2 if parameter.is_complex() else 1) for parameter in module.parameters())


def training_size(module: nn.Module, loss: Callable[[], Tensor], moments: int) -> TrainingSize:
    """Measure the memory of one forward and backward pass; on the meta device nothing is allocated.

    Every storage created by an operation counts until it is freed, once even if several tensors view it. Internal
    memory of kernels, such as the workspace of an FFT or a convolution, is not included. Existing gradients of the
    module are discarded.

    Args:
        module: module with all parameters that ``loss`` uses.
        loss: function that runs the forward pass and returns the scalar loss.
        moments: numbers that the optimiser keeps per parameter: 2 for Adam.
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
        # Gradients of the previous step are freed only between the two passes.
        activation_bytes=max(in_forward, live.peak - gradients),
    )


class _LiveStorages(TorchDispatchMode):
    """Dispatch mode that tracks the bytes of live storages created under it, currently (``now``) and at the peak.

    Args:
        owned: tensors to exclude.
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
