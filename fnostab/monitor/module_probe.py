"""Record every module of a network at every step, for replays of a failure; too slow for training."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim import Optimizer

from fnostab.monitor.layer_measures import dead_share, real_values, rms


@dataclass(frozen=True)
class ModuleState:
    """State of one module at one step. Non-finite numbers are kept; None marks a missing one.

    Attributes:
        output_max: largest absolute value of its output.
        dead: share of dead channels of its output, see `fnostab.monitor.layer_measures.dead_share`.
        gradient: norm of the gradient with respect to its output.
        weight: norm of its own parameters before the step.
        weight_gradient: norm of their gradient, before clipping.
        update: norm of the change of its parameters in the step.
    """

    output_rms: float | None = None
    output_max: float | None = None
    dead: float | None = None
    gradient: float | None = None
    weight: float | None = None
    weight_gradient: float | None = None
    update: float | None = None

    @property
    def update_ratio(self) -> float | None:
        """Ratio of update norm to weight norm; None without weights."""
        return self.update / self.weight if self.update is not None and self.weight else None

    @property
    def finite(self) -> bool:
        """Whether output and gradient are finite."""
        return all(math.isfinite(v) for v in (self.output_max, self.gradient) if v is not None)


class ModuleProbe(Callback):
    """Collect a `ModuleState` of every innermost module with an output, at every step.

    Modules that run again in the backward pass (activation checkpointing) are measured in the forward pass only.

    Attributes:
        steps: modules by name, in the order in which they ran, for each optimiser step.
    """

    def __init__(self) -> None:
        self.steps: dict[int, dict[str, ModuleState]] = {}
        self._seen: dict[str, dict[str, Tensor]] = {}
        self._before: dict[str, list[Tensor]] = {}
        self._modules: dict[str, nn.Module] = {}
        self._in_backward = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        network = getattr(pl_module, "generator", pl_module)
        self._modules = {name: m for name, m in network.named_modules() if _is_watched(name, m)}
        for name, module in self._modules.items():
            module.register_forward_hook(self._hook(name))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._seen = {}
        self._in_backward = False

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        self._in_backward = True

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        for name, module in self._modules.items():
            own = [p for p in module.parameters(recurse=False) if p.grad is not None]
            if own and name in self._seen:
                self._before[name] = [p.detach().clone() for p in own]
                self._seen[name]["weight"] = _norm(self._before[name])
                self._seen[name]["weight_gradient"] = _norm([p.grad for p in own if p.grad is not None])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for name, before in self._before.items():
            after = [p.detach() for p in self._modules[name].parameters(recurse=False) if p.grad is not None]
            self._seen[name]["update"] = _norm([b - a for a, b in zip(after, before, strict=True)])
        self._before = {}
        self.steps[trainer.global_step - 1] = {
            name: ModuleState(**{key: float(value) for key, value in seen.items()}) for name, seen in self._seen.items()
        }

    def _hook(self, name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple | list) and output else output
            if self._in_backward or not module.training or not isinstance(first, Tensor):
                return
            seen = self._seen[name] = _of_output(first)
            if first.requires_grad:
                first.register_hook(lambda gradient: seen.update(gradient=_norm([gradient])))

        return keep


def _is_watched(name: str, module: nn.Module) -> bool:
    """Whether a module is a leaf that computes something."""
    return bool(name) and not list(module.children()) and not isinstance(module, nn.Identity)


def _of_output(output: Tensor) -> dict[str, Tensor]:
    values = real_values(output)
    found = {"output_rms": rms(values.double()), "output_max": values.abs().max()}
    if (dead := dead_share(values)) is not None:
        found["dead"] = dead
    return found


def _norm(tensors: list[Tensor]) -> Tensor:
    """Norm of all tensors together, in float64, since squares of large finite values overflow float32."""
    return torch.stack([torch.linalg.vector_norm(torch.abs(t), dtype=torch.float64) for t in tensors]).norm()
