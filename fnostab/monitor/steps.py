"""One optimiser step, measured without waiting for the device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

NUMBERS = ("norm", "clipped", "loss", "fraction", "bad", "skipped", "scale", "restored")


@dataclass
class Step:
    """Measurements of one optimiser step, as 0-d tensors on the device; None if not measured.

    Attributes:
        learning_rate: learning rate of the first parameter group; None if it has none.
        number: index of the step for its optimiser, 0-based.
        batch: index of the (last) batch of the step.
        loss: mean over the step's micro-batches; under manual optimisation the sum over its backward passes.
        norm: norm of the gradient before clipping.
        clipped: norm of the gradient that the optimiser used.
        fraction: share of units that were clipped.
        bad: whether loss or gradient is not finite in any process.
        skipped: whether a loss scaler skipped the step.
        restored: whether non-finite running statistics were restored after a good step.
        tensor_norms: gradient norm of each of ``parameters``, before clipping if available.
        weight_norms: norm of each of ``parameters`` before the step, if a black box needs it.
        place: index of the step over all optimisers.
    """

    learning_rate: float | Tensor | None = 0.0
    optimizer: int = 0
    number: int = 0
    batch: int = 0
    epoch: int = 0
    loss: Tensor | None = None
    norm: Tensor | None = None
    clipped: Tensor | None = None
    fraction: Tensor | None = None
    bad: Tensor | None = None
    skipped: Tensor | None = None
    scale: Tensor | None = None
    restored: Tensor | None = None
    tensor_norms: Sequence[Tensor] = ()
    parameters: Sequence[nn.Parameter] = ()
    weight_norms: Sequence[Tensor] = ()
    place: int = 0


def read_steps(steps: Sequence[Step]) -> list[Mapping[str, float | None]]:
    """Copy the `NUMBERS` of steps to the host; None stays None. Waits for the device."""
    found = [[getattr(step, name) for name in NUMBERS] for step in steps]
    seen = [tensor for row in found for tensor in row if tensor is not None]
    if not seen:
        return [dict.fromkeys(NUMBERS) for _ in steps]
    dtype = torch.float64 if any(t.dtype == torch.float64 for t in seen) else torch.float32
    device = seen[0].device
    values = iter(torch.stack([t.to(device=device, dtype=dtype) for t in seen]).tolist())
    return [{name: None if t is None else next(values) for name, t in zip(NUMBERS, row, strict=True)} for row in found]


def with_gradient(optimizer: Optimizer) -> list[nn.Parameter]:
    """Parameters with a gradient, in the optimiser's order."""
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def tensor_norms(gradients: Sequence[Tensor]) -> Sequence[Tensor]:
    """Norm of each gradient, as 0-d tensors in at least float32 on the first one's device, without waiting for it."""
    if len({(g.device, g.dtype, g.layout) for g in gradients}) == 1:
        return _norms_of_a_kind(gradients)
    kinds: dict[tuple[object, ...], list[int]] = {}
    for i, g in enumerate(gradients):
        kinds.setdefault((g.device, g.dtype, g.layout), []).append(i)
    norms = list(gradients)
    for places in kinds.values():
        for i, norm in zip(places, _norms_of_a_kind([gradients[i] for i in places]), strict=True):
            norms[i] = norm
    dtype = torch.float64 if any(norm.dtype == torch.float64 for norm in norms) else torch.float32
    return [norm.to(device=gradients[0].device, dtype=dtype) for norm in norms]


def total_norm(norms: Sequence[Tensor]) -> Tensor:
    """Norm of all gradients together, a 0-d tensor, from their `tensor_norms`."""
    return torch.linalg.vector_norm(torch.stack(list(norms)))


def _norms_of_a_kind(gradients: Sequence[Tensor]) -> Sequence[Tensor]:
    first = gradients[0]
    if first.layout != torch.strided:  # rows that occur twice are summed
        gradients = [g.coalesce().values() if g.layout == torch.sparse_coo else g.to_dense() for g in gradients]
    if first.is_complex():
        return [torch.linalg.vector_norm(g) for g in gradients]
    narrow = first.dtype in (torch.float16, torch.bfloat16)  # squares would overflow
    return torch._foreach_norm(list(gradients), 2, torch.float32) if narrow else torch._foreach_norm(list(gradients))
