"""Watch the steps of one optimiser, whoever calls it and however often it evaluates the loss.

Lightning has no hook between the last change of a gradient (clipping, say) and the step that uses it. Torch has two: a
hook before ``Optimizer.step``, and the closure that an optimiser calls for its gradient. They see the gradient that the
optimiser uses. The gradient before clipping is read at the end of the backward pass.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from fnostab.monitor.nonfinite_guard import RunningStatistics, guard_step, release
from fnostab.monitor.ranks import anywhere
from fnostab.monitor.steps import Step, tensor_norms, total_norm, with_gradient


def loss_scaler(trainer: Trainer) -> Any:
    """The Trainer's loss scaler; None without one."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler if scaler is not None and scaler.is_enabled() else None


class OptimizerWatch:
    """Collect a `Step` for every step of an optimiser.

    Attributes:
        block: steps not yet read.
        made: steps of the current batch.
        steps: number of steps made so far.
    """

    def __init__(
        self,
        trainer: Trainer,
        module: LightningModule,
        optimizer: Optimizer,
        index: int,
        statistics: RunningStatistics,
        places: Iterator[int],
        *,
        weight_norms: bool,
    ) -> None:
        self.optimizer = optimizer
        self.block: list[Step] = []
        self.made: list[Step] = []
        self.batch = self.epoch = 0
        self._trainer = trainer
        self._module = module
        self._index = index
        self.steps = 0
        self._weight_norms = weight_norms
        self._statistics = statistics
        self._places = places
        self._handles: list[Any] = []
        self._loss: Tensor | None = None  # of the backward passes since the last step
        self._backwards: int | Tensor = 0
        self._version = 0  # of the first gradient, after the last backward pass
        self._unseen_loss = False
        self._before: Step | None = None  # norms before clipping, of the last backward pass
        self._is_due = False
        self._depth = 0  # a subclass's step may call its parent's
        self._step: Step | None = None

    def attach(self, number: int) -> None:
        """Start watching at step ``number``. Without torch's hooks, the clipped gradient can't be read."""
        self.steps = number
        if hasattr(self.optimizer, "register_step_pre_hook"):
            self._handles = [
                self.optimizer.register_step_pre_hook(self._before_step),
                self.optimizer.register_step_post_hook(self._after_step),
            ]

    def detach(self) -> None:
        """Remove all hooks from the optimiser."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        release(self.optimizer)

    def start_batch(self, batch: int, epoch: int) -> None:
        """Note that a batch begins."""
        self.batch, self.epoch, self.made = batch, epoch, []
        self._depth = 0
        if self._handles:  # run after other hooks, which may clip
            hooks: Any = self.optimizer._optimizer_step_pre_hooks
            own = self._handles[0].id
            if next(reversed(hooks)) != own:
                hooks.move_to_end(own)

    def end_batch(self) -> None:
        """Note that a batch has ended; if a step was due and not made, the loss scaler skipped it."""
        if self._is_due:
            self._keep_due()

    def fingerprint(self) -> list[tuple[int, int]]:
        """Identity and version of every gradient; changes if a backward pass adds to one."""
        return [
            (id(p.grad), -1 if p.grad is None else p.grad._version)
            for group in self.optimizer.param_groups
            for p in group["params"]
        ]

    @torch.no_grad()
    def start_backward(self) -> None:
        """Note that a backward pass begins; losses whose gradients were removed or set to zero do not count."""
        if self._loss is None and not self._unseen_loss:
            return
        gradients = [p.grad for p in with_gradient(self.optimizer) if p.grad is not None]
        if not gradients:
            self._forget_loss()
        elif self._loss is not None and gradients[0]._version != self._version:
            kept = total_norm(tensor_norms(gradients)).to(self._loss.device) != 0
            self._loss, self._backwards = torch.where(kept, self._loss, 0), self._backwards * kept

    @torch.no_grad()
    def end_backward(self, loss: Tensor | None) -> None:
        """Note that the gradients of ``loss`` were added; None if the loss was not a scalar."""
        if loss is None:
            self._unseen_loss = True
        else:
            self._loss = loss if self._loss is None else self._loss + loss.to(self._loss.device)
        self._backwards += 1
        parameters = with_gradient(self.optimizer)
        self._before = None
        if parameters:
            norms = tensor_norms([p.grad for p in parameters if p.grad is not None])
            norm, scale, scaler = total_norm(norms), None, loss_scaler(self._trainer)
            if scaler is not None and scaler._scale is not None:
                scale = scaler._scale.clone()
                norm = norm / scale.to(norm)
            self._before = Step(norm=norm, scale=scale, tensor_norms=norms, parameters=parameters)
            self._version = parameters[0].grad._version  # type: ignore[union-attr]

    def announce(self) -> None:
        """Note that Lightning is about to make a step."""
        self.end_batch()  # an earlier step that was never made
        self._is_due = True

    # Hooks called by torch

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        self._depth += 1
        if self._depth > 1:
            return None
        self._step = None
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._see()
            return None
        seen = self._seeing(closure)
        return (args, kwargs | {"closure": seen}) if "closure" in kwargs else ((args[0], seen, *args[2:]), kwargs)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._depth -= 1
        if self._depth > 0:
            return
        if self._step is None:  # it never called its closure
            self._see()
        self._keep(self._step)
        release(self.optimizer)

    def _seeing(self, closure: Callable[..., Any]) -> Callable[..., Any]:
        def seen(*args: Any, **kwargs: Any) -> Any:
            value = closure(*args, **kwargs)
            self._see()
            return value

        return seen

    # Measurements of a step

    @torch.no_grad()
    def _see(self) -> None:
        """Read the gradient that the optimiser will use, and guard the weights against a non-finite one."""
        self._is_due = False
        loss, before, parameters = self._take_loss(), self._before, with_gradient(self.optimizer)
        self._before = None
        gradients = [p.grad for p in parameters if p.grad is not None]
        step = self._new_step(loss)
        if gradients:
            norms = tensor_norms(gradients)
            step.clipped = total_norm(norms)
            scale = getattr(self.optimizer, "grad_scale", None)  # set if the optimiser is fused and unscales by itself
            if scale is not None:
                step.skipped = self.optimizer.found_inf.bool()  # type: ignore[attr-defined]
                step.clipped = step.clipped / scale.to(step.clipped)
            if before is not None:
                _take_before(step, before)
            elif all(g._version == 0 for g in gradients):  # unmodified since they were created
                step.norm, step.tensor_norms, step.parameters = step.clipped, norms, parameters
        step.bad = self._is_bad(step)
        if self._step is None:
            self._step = step
            step.restored = self._statistics.step(step.bad)
            if self._weight_norms and step.parameters:
                step.weight_norms = tensor_norms([p.detach() for p in step.parameters])
        elif self._searches_line():  # a line search may try points with a non-finite loss
            return
        else:
            self._step.bad = self._step.bad | step.bad if self._step.bad is not None else step.bad
        guard_step(self.optimizer, gradients, step.bad)

    def _new_step(self, loss: Tensor | None) -> Step:
        rate = self.optimizer.param_groups[0].get("lr")  # None if it takes none, as Adafactor may
        if isinstance(rate, Tensor):
            rate = rate.detach().clone()  # read with the block; a schedule changes it in place
        step = Step(rate, self._index, self.steps, self.batch, self.epoch, loss=loss, place=next(self._places))
        fraction = getattr(self._module, "clip_fraction", None)
        if isinstance(fraction, Tensor | float | int):
            step.fraction = fraction if isinstance(fraction, Tensor) else torch.tensor(float(fraction))
        return step

    def _is_bad(self, step: Step) -> Tensor:
        seen = [value for value in (step.clipped, step.norm, step.loss) if value is not None]
        device = seen[0].device if seen else self._module.device
        bad = torch.zeros((), dtype=torch.bool, device=device)
        for value in seen:
            bad = bad | ~torch.isfinite(value).to(device)
        if step.skipped is not None:
            bad = bad & ~step.skipped.to(device)
        return anywhere(self._trainer, bad)

    def _take_loss(self) -> Tensor | None:
        """Return and reset the loss of the current step; None if part of it was not seen."""
        loss = None if self._unseen_loss else self._loss
        if loss is not None and self._module.automatic_optimization:
            # Lightning divides each micro-batch's loss by their usual number; an epoch's last step may have fewer.
            loss = loss * (self._trainer.accumulate_grad_batches / self._backwards)
        self._forget_loss()
        return loss

    def _forget_loss(self) -> None:
        self._loss, self._backwards, self._unseen_loss = None, 0, False

    def _searches_line(self) -> bool:
        return any(group.get("line_search_fn") for group in self.optimizer.param_groups)

    @torch.no_grad()
    def _keep_due(self) -> None:
        self._is_due = False
        step, before = self._new_step(self._take_loss()), self._before
        self._before = None
        if before is not None:
            _take_before(step, before)
        if loss_scaler(self._trainer) is not None and before is not None:
            step.skipped = torch.ones((), dtype=torch.bool, device=self._module.device)
        step.bad = self._is_bad(step)
        step.restored = self._statistics.step(step.bad)
        self._keep(step)

    def _keep(self, step: Step | None) -> None:
        if step is not None:
            self.block.append(step)
            self.made.append(step)
            self.steps += 1
        self._step = None

    def loss_under_way(self) -> Tensor | None:
        """Loss of the backward passes since the last step."""
        return self._loss


def _take_before(step: Step, before: Step) -> None:
    """Copy the norms that were read at the end of the last backward pass."""
    for name in ("norm", "scale", "tensor_norms", "parameters"):
        setattr(step, name, getattr(before, name))
