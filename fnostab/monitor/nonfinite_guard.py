"""Keep a step whose loss or gradient is not finite from changing the weights, without waiting for the device.

Fused optimisers accept a flag, ``found_inf``, meant for loss scaling: if it is set, a step
changes neither weights nor state. Any other optimiser gets zero gradients instead.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer


def guard_step(optimizer: Optimizer, gradients: Sequence[Tensor], bad: Tensor) -> None:
    """Make the optimiser's next step change nothing if ``bad``, a 0-d boolean tensor on the device, is true."""
    if hasattr(optimizer, "grad_scale"):  # a loss scaler has set its own flag and removes it
        optimizer.found_inf = torch.maximum(optimizer.found_inf, bad.to(optimizer.found_inf))  # type: ignore[attr-defined]
    elif takes_found_inf(optimizer):
        _fill_momentum(optimizer)
        optimizer.found_inf = bad.to(torch.float32)  # type: ignore[attr-defined]
    else:
        for gradient in gradients:
            values = gradient._values() if gradient.layout == torch.sparse_coo else gradient
            values.masked_fill_(bad.to(values.device), 0)


def release(optimizer: Optimizer) -> None:
    """Remove the flag, which would otherwise affect every later step."""
    if not hasattr(optimizer, "grad_scale"):
        vars(optimizer).pop("found_inf", None)


def describe_guard(optimizer: Optimizer) -> str:
    """Describe an optimiser's guard in one sentence: its kind, and what may still change the weights."""
    name = type(optimizer).__name__
    if takes_found_inf(optimizer):
        return f"{name}: fused, leaves out a step whose loss or gradient is not finite."
    return (
        f"{name}: not fused, so the gradients of a step that is not finite are set to zero; "
        "momentum and weight decay still move the weights."
    )


def takes_found_inf(optimizer: Optimizer) -> bool:
    """Whether the optimiser supports ``found_inf``; SGD with dampening does not after its first step."""
    fused = all(bool(group.get("fused")) for group in optimizer.param_groups)
    damped = any(group.get("momentum") and group.get("dampening") for group in optimizer.param_groups)
    return fused and not damped and getattr(optimizer, "_step_supports_amp_scaling", False)


class RunningStatistics:
    """Copies of the running means and variances of a module's normalisation layers from before a step.

    The forward pass of a bad batch writes NaN into them, which would remain although the step is skipped
    (pytorch issue 1206).

    Args:
        module: module with the normalisation layers.
        several: whether the module has several optimisers, which may update batch norms in turn.
    """

    def __init__(self, module: nn.Module, *, several: bool) -> None:
        self._several = several
        self._normalisations = [m for m in module.modules() if isinstance(m, _NormBase) and m.track_running_stats]
        self._buffers: list[Tensor] = []
        self._before: list[Tensor] = []

    def keep(self) -> None:
        """Copy the statistics before a forward pass, unless already done since the last step."""
        if self._before:
            return
        buffers = [b for m in self._normalisations for b in (m.running_mean, m.running_var, m.num_batches_tracked)]
        self._buffers = [b for b in buffers if b is not None]
        if any(nn.parameter.is_lazy(b) for b in self._buffers):
            self._buffers = []  # not yet
        self._before = [b.clone() for b in self._buffers]

    def step(self, bad: Tensor) -> Tensor | None:
        """Restore the statistics after a bad step or if they are not finite, without waiting for the device.

        Returns:
            A 0-d tensor: whether they were not finite after a good step, because the module ignored a bad batch or
            the square of an activation overflowed. None without statistics.
        """
        if not self._before:
            return None
        device = self._buffers[0].device
        floats = [b.detach().flatten().to(device) for b in self._buffers if b.is_floating_point()]
        spoilt = ~torch.cat(floats).sum(dtype=torch.float64).isfinite()  # float64 does not overflow
        for now, before in zip(self._buffers, self._before, strict=True):
            # .data hides the write from autograd, for a graph that runs backward again
            now.data.copy_(torch.where((spoilt | bad.to(device)).to(now.device), before, now))
        self._before = []
        if self._several:
            self.keep()
        return spoilt & ~bad.to(device)


def _fill_momentum(optimizer: Optimizer) -> None:
    """Initialise SGD's momentum to 0, which changes no step.

    Torch allocates it at the first step; if that step is skipped, its memory stays uninitialised.
    """
    if isinstance(optimizer, torch.optim.SGD):
        for group in optimizer.param_groups:
            for p in group["params"] if group["momentum"] else ():
                if p.grad is not None and optimizer.state[p].get("momentum_buffer") is None:
                    optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
