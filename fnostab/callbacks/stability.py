"""Watch every optimiser step, and say what became of the training.

Works in any LightningModule: ``Trainer(callbacks=[StabilityMonitor()])``. With a sink it also writes
down the loss, the gradient norm before and after clipping, the clipped fraction and the learning
rate of every step.

The device is never waited for at a step. What a step gave stays on the device until a block of steps
is read at once; the step of the first non-finite value is exact all the same. A non-finite loss or
gradient never reaches the weights: fused optimisers are told by ``found_inf`` to leave that step
out, on the device; for any other the gradients are set to zero.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from fnostab import names
from fnostab.config import MonitorConfig
from fnostab.errors import ConfigError
from fnostab.journal import Sink
from fnostab.outcomes import Judgement, Outcome, Validation, judge, patches_alike_at

__all__ = ["StabilityMonitor"]


class StabilityMonitor(Callback):
    """Record every optimiser step and judge the training by the rules of docs/outcomes.md.

    A gradient norm that overflows float32 counts as non-finite: the squares that Adam keeps of such
    a gradient do too.

    Under automatic optimisation the norm is taken before clipping and again after it. Under manual
    optimisation Lightning shows gradients only once the module has clipped them, so both are equal.

    Args:
        sink: gets points and events; None keeps only the outcome.
        rules: thresholds, steps between two reads of the device, and what happens after a failure.
        val_loss_name: under which the module logs its validation loss. If it logs none, `exploded`
            is judged on the mean training loss of each epoch, and `judgement` says so.
        constant_loss: validation loss of the best constant output. None: `stagnated` is not judged.
            `collapsed` is judged only if the module logs ``val/amplitude_spread`` or
            ``val/patch_variation``.
        warmup_steps: a trial is never ended early for a constant output within these.

    Attributes:
        outcome: what became of the training; ``running`` until it has ended.
        failure_step: 0-based optimiser step of the failure, None if it did not fail.
        judgement: the outcome with its evidence; None until the training has ended.
        guard: how a non-finite gradient is kept from the weights.
    """

    def __init__(
        self,
        sink: Sink | None = None,
        *,
        rules: MonitorConfig | None = None,
        val_loss_name: str = "val_loss",
        constant_loss: float | None = None,
        warmup_steps: int = 0,
    ) -> None:
        self.sink = sink
        self.rules = rules or MonitorConfig()
        self.val_loss_name = val_loss_name
        self.constant_loss = constant_loss
        self.warmup_steps = warmup_steps
        self.outcome = Outcome.RUNNING
        self.failure_step: int | None = None
        self.judgement: Judgement | None = None
        self.guard = ""
        self.validations: list[Validation] = []
        self.steps_read = 0
        self.nan_events = 0
        self.inf_events = 0
        self.first_nonfinite_step: int | None = None
        self._loss: Tensor | None = None
        self._block: list[Tensor] = []  # per step: loss, norm before clipping, after, clipped fraction
        self._on_host: list[tuple[float, bool]] = []  # per step: learning rate, whether a loss was seen
        self._unclipped: tuple[Tensor, Tensor, list[Tensor]] | None = None
        self._grad_norms: list[float] = []
        self._window: list[float] = []
        self._window_steps = 1
        self._epoch_losses: list[float] = []
        self._epochs: list[Validation] = []

    # The hooks, in the order in which Lightning calls them

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.precision == "16-mixed":
            raise ConfigError(
                "precision='16-mixed' overflows by design, which can't be told from a failure: use 'bf16-mixed' or '32'"
            )
        total = trainer.estimated_stepping_batches
        self._window_steps = max(1, math.ceil(total / names.WINDOWS)) if math.isfinite(total) else 100
        self.guard = " ".join(sorted({_guard(optimizer) for optimizer in trainer.optimizers}))
        self._event(names.STARTED_EVENT, {"scheduled_steps": _finite(total), "guard": self.guard})

    def on_before_backward(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: Tensor
    ) -> None:
        loss = loss.detach()
        self._loss = loss if self._loss is None else self._loss + loss  # micro-batches of one step

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: Optimizer
    ) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = get_total_norm(gradients)
        loss_seen = self._loss is not None  # not if a module calls loss.backward() by itself
        loss = self._loss.to(norm) if self._loss is not None else torch.zeros_like(norm)
        self._loss = None
        bad = ~(torch.isfinite(loss) & torch.isfinite(norm))
        if _takes_found_inf(optimizer):
            optimizer.found_inf = bad.to(torch.float32)  # type: ignore[attr-defined]
        else:
            for gradient in gradients:
                gradient.masked_fill_(bad, 0)
        self._on_host.append((float(optimizer.param_groups[0]["lr"]), loss_seen))
        if pl_module.automatic_optimization:
            self._unclipped = (loss, norm, gradients)
        else:
            self._block.append(torch.stack((loss, norm, norm, norm.new_full((), math.nan))))

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._unclipped is not None:
            loss, norm, gradients = self._unclipped
            clipped = get_total_norm(gradients) if _clips(trainer, pl_module) else norm
            fraction = getattr(pl_module, "clip_fraction", None)
            fraction = norm.new_full((), math.nan) if fraction is None else fraction.to(norm)
            self._block.append(torch.stack((loss, norm, clipped, fraction)))
            self._unclipped = None
        if len(self._block) >= self.rules.block_steps:
            self._read_block(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._read_block(trainer)
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if self.val_loss_name not in logged:
            return
        step = max(self.steps_read - 1, 0)
        loss = logged[self.val_loss_name]
        spread, variation = logged.get(names.AMPLITUDE_SPREAD), logged.get(names.PATCH_VARIATION)
        self.validations.append(Validation(step, loss, spread, variation))
        points = {name: value for name, value in logged.items() if name.startswith(names.VAL_PREFIX)}
        self._record(step, {**points, f"{names.VAL_PREFIX}{self.val_loss_name}": loss})
        self._end_early_if_constant(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._read_block(trainer)
        if self._epoch_losses:
            self._epochs.append(Validation(self.steps_read - 1, float(np.mean(self._epoch_losses))))
            self._epoch_losses = []

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._read_block(trainer)
        self._close_window()
        scheduled = trainer.estimated_stepping_batches
        last_step = (int(scheduled) if math.isfinite(scheduled) else self.steps_read) - 1
        self._conclude(max(last_step, self.steps_read - 1, 0))

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        if self.outcome is not Outcome.RUNNING:
            return
        if not isinstance(exception, RuntimeError):  # after a device error the block can't be read
            self._read_block(trainer)
        self.outcome = _outcome_of(exception)
        self._event(names.TAGS_EVENT, {names.OUTCOME: str(self.outcome), names.REASON: _one_line(exception)})

    # Reading and judging

    def _read_block(self, trainer: lightning.Trainer) -> None:
        """Bring a block of steps to the host: the only place that waits for the device."""
        if not self._block:
            return
        rows = torch.stack(self._block).tolist()
        for row, (learning_rate, loss_seen) in zip(rows, self._on_host, strict=False):
            loss, norm, clipped, fraction = row
            self._take(self.steps_read, loss, norm, clipped, fraction, learning_rate, loss_seen)
            self.steps_read += 1
        self._block.clear()
        del self._on_host[: len(rows)]
        if self.first_nonfinite_step is not None and self.rules.after_failure == "stop":
            trainer.should_stop = True

    def _take(
        self,
        step: int,
        loss: float,
        norm: float,
        clipped: float,
        fraction: float,
        learning_rate: float,
        loss_seen: bool,
    ) -> None:
        point = {names.GRAD_NORM: norm, names.GRAD_NORM_CLIPPED: clipped, names.LEARNING_RATE: learning_rate}
        if loss_seen:
            point[names.TRAIN_LOSS] = loss
            self._epoch_losses.append(loss)
        if not math.isnan(fraction):
            point[names.CLIP_FRACTION] = fraction
        self._record(step, point)
        if math.isfinite(norm):
            self._grad_norms.append(norm)
            self._window.append(norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._take_nonfinite(step, loss, norm)
        if (step + 1) % self._window_steps == 0:
            self._close_window(step)

    def _take_nonfinite(self, step: int, loss: float, norm: float) -> None:
        self.nan_events += math.isnan(loss) or math.isnan(norm)
        self.inf_events += math.isinf(loss) or math.isinf(norm)
        if self.first_nonfinite_step is None:
            self.first_nonfinite_step = self.failure_step = step
            where = [what for what, value in (("loss", loss), ("gradient", norm)) if not math.isfinite(value)]
            self._event(names.NONFINITE_EVENT, {"step": step, "where": where, "loss": repr(loss), "norm": repr(norm)})
            self._event(
                names.TAGS_EVENT, {names.OUTCOME: str(Outcome.NONFINITE), names.FAILURE_STEP: str(step)}
            )  # at once: the process may die of it

    def _close_window(self, step: int | None = None) -> None:
        if self._window:
            self._record(self.steps_read - 1 if step is None else step, {names.GRAD_NORM_WINDOW_MAX: max(self._window)})
            self._window.clear()

    def _end_early_if_constant(self, trainer: lightning.Trainer) -> None:
        quarter = trainer.estimated_stepping_batches / 4
        if self.rules.after_failure == "stop" and self.steps_read > max(self.warmup_steps, quarter):
            trainer.should_stop |= patches_alike_at(self.validations, self.rules)[-1]

    def _conclude(self, last_scheduled_step: int) -> None:
        validations = self.validations or self._epochs
        judgement = judge(
            validations,
            first_nonfinite_step=self.first_nonfinite_step,
            last_step=last_scheduled_step,
            constant_loss=self.constant_loss if self.validations else None,
            rules=self.rules,
        )
        if not self.validations and len(validations) >= 2:
            note = f"exploded: on the training loss of each epoch, no {self.val_loss_name!r} was logged"
            judgement = Judgement(
                judgement.outcome,
                judgement.failure_step,
                judgement.known_good_step,
                judgement.rules_held,
                (*judgement.not_judged, note),
            )
        self.judgement, self.outcome, self.failure_step = judgement, judgement.outcome, judgement.failure_step
        self._record(max(self.steps_read - 1, 0), self.summary())
        self._event(names.TAGS_EVENT, _tags(judgement))

    def summary(self) -> dict[str, float]:
        """One number each of the whole training, under the names of `fnostab.names`; finite ones only."""
        last_step = max(self.steps_read - 1, 0)
        late = np.array(self._grad_norms[len(self._grad_norms) // 2 :] or [math.nan])
        losses = [v.loss for v in self.validations]
        values = {
            names.NAN_EVENTS: self.nan_events,
            names.INF_EVENTS: self.inf_events,
            names.LAST_STEP: last_step,
            names.TIME_TO_FAILURE: last_step if self.failure_step is None else self.failure_step,
            names.GRAD_P99_LAST_HALF: np.quantile(late, 0.99),
            names.GRAD_MEDIAN_LAST_HALF: np.median(late),
            names.VAL_LOSS_BEST: min((loss for loss in losses if math.isfinite(loss)), default=math.nan),
            names.VAL_LOSS_LAST: losses[-1] if losses else math.nan,
        }
        return {name: float(value) for name, value in values.items() if math.isfinite(value)}

    def _record(self, step: int, values: Mapping[str, float]) -> None:
        if self.sink is not None:
            self.sink.record(step, values)

    def _event(self, name: str, payload: Mapping[str, Any]) -> None:
        if self.sink is not None:
            self.sink.event(name, payload)


def _finite(steps: float) -> int | None:
    return int(steps) if math.isfinite(steps) else None


def _takes_found_inf(optimizer: Optimizer) -> bool:
    fused: Iterable[bool] = (bool(group.get("fused")) for group in optimizer.param_groups)
    return all(fused) and getattr(optimizer, "_step_supports_amp_scaling", False)


def _guard(optimizer: Optimizer) -> str:
    name = type(optimizer).__name__
    if _takes_found_inf(optimizer):
        return f"{name}: fused, leaves out a step whose loss or gradient is not finite."
    return (
        f"{name}: not fused, so the gradients of a step that is not finite are set to zero; "
        "momentum and weight decay still move the weights."
    )


def _clips(trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> bool:
    if trainer.gradient_clip_val is not None:
        return True
    default = lightning.LightningModule.configure_gradient_clipping
    overridden = type(pl_module).configure_gradient_clipping is not default
    return overridden and getattr(pl_module, "gradient_clip_val", True) is not None


def _outcome_of(exception: BaseException) -> Outcome:
    if isinstance(exception, torch.OutOfMemoryError | MemoryError):
        return Outcome.OOM
    if isinstance(exception, KeyboardInterrupt | SystemExit):
        return Outcome.KILLED
    return Outcome.INFRA_ERROR


def _one_line(exception: BaseException) -> str:
    return " ".join(f"{type(exception).__name__}: {exception}".split())[:500]


def _tags(judgement: Judgement) -> dict[str, str]:
    tags = {
        names.OUTCOME: str(judgement.outcome),
        names.RULES_HELD: "; ".join(judgement.rules_held),
        names.NOT_JUDGED: "; ".join(judgement.not_judged),
        names.FAILURE_STEP: "" if judgement.failure_step is None else str(judgement.failure_step),
        names.FAILURE_AFTER: "" if judgement.known_good_step is None else str(judgement.known_good_step),
    }
    return {name: text for name, text in tags.items() if text}
