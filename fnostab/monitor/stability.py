"""Watch every optimiser step, and say what became of the training.

Works in any LightningModule: ``Trainer(callbacks=[StabilityMonitor()])``. With a sink it also writes
down the loss, the gradient norm before and after clipping, the clipped fraction and the learning
rate of every step.

The device is never waited for at a step. What a step gave stays on the device until a block of steps
is read at once; the step of the first non-finite value is exact all the same. A non-finite loss or
gradient never reaches the weights (`nonfinite_guard`).
"""

import copy
import math
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import astuple, replace
from typing import Any, Literal

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from fnostab.errors import ConfigError
from fnostab.monitor.exceptions import one_line, outcome_of
from fnostab.monitor.nonfinite_guard import describe_guard, guard_step, release
from fnostab.monitor.spikes import Spike, SpikeDetector
from fnostab.monitor.steps import Step, gradients_of, tensor_norms_of
from fnostab.record import names
from fnostab.record.journal import Sink
from fnostab.record.outcomes import Judgement, Outcome, OutcomeRules, Validation, ends_early, judge

__all__ = ["StabilityMonitor"]

KEPT = (  # in a checkpoint, of what was seen so far
    "nan_events",
    "inf_events",
    "first_nonfinite_step",
    "failure_step",
    "_grad_norms",
    "_window",
    "_epoch_losses",
    "_losses",
)
KEPT_VALIDATIONS = ("validations", "_epochs")


class StabilityMonitor(Callback):
    """Record every optimiser step and judge the training by the rules of docs/outcomes.md.

    A gradient norm that overflows float32 counts as non-finite: the squares that Adam keeps of such
    a gradient do too.

    Under automatic optimisation the norm is taken before clipping and again after it. Under manual
    optimisation Lightning shows gradients only once the module has clipped them, so both are equal,
    and the steps of all optimisers are counted together, as Lightning does.

    One monitor watches one training. A training that goes on from a Lightning checkpoint is counted on
    from its step, and judged by what was seen before it too.

    Args:
        sink: gets points and events; None keeps only the outcome.
        rules: what counts as a failure.
        val_loss_name: under which the module logs its validation loss. If it logs none, `exploded`
            is judged on the mean training loss of each epoch, and `judgement` says so.
        baseline: validation loss of an output that has learnt nothing. None takes that of the rules; without
            either `stagnated` is not judged.
        warmup_steps: a trial is never ended early for a constant output within these.
        block_steps: steps between two reads of the device.
        after_failure: "stop" ends the training at a failure that is certain, "continue" goes on.

    Attributes:
        outcome: what became of the training; ``running`` until it has ended.
        failure_step: 0-based optimiser step of the failure, None if it did not fail.
        judgement: the outcome with its evidence; None until the training has ended.
        guard: how a non-finite gradient is kept from the weights.
        latest: loss and norms of the last step, on the device.
    """

    def __init__(
        self,
        sink: Sink | None = None,
        *,
        rules: OutcomeRules | None = None,
        val_loss_name: str = "val_loss",
        baseline: float | None = None,
        warmup_steps: int = 0,
        block_steps: int = 32,
        after_failure: Literal["stop", "continue"] = "stop",
    ) -> None:
        self.sink = sink
        self.rules = rules or OutcomeRules()
        self.block_steps = block_steps
        self.after_failure = after_failure
        self.val_loss_name = val_loss_name
        self.baseline = self.rules.baseline if baseline is None else baseline
        self._measures = (*self.rules.collapsed, *self.rules.meaningless)
        self._losses: list[float] = []
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
        self.latest: Step | None = None
        self._spikes = SpikeDetector()
        self._loss: Tensor | None = None
        self._micro_batches = 0
        self._step: Step | None = None  # the one that is under way
        self._block: list[Step] = []
        self._undo = ExitStack()  # of what was changed in the module and its optimisers
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
        self.outcome = Outcome.RUNNING
        total = trainer.estimated_stepping_batches
        if not pl_module.automatic_optimization:
            total *= len(trainer.optimizers)
        self._window_steps = max(1, math.ceil(total / names.WINDOWS)) if math.isfinite(total) else 100
        self.guard = " ".join(sorted({describe_guard(optimizer) for optimizer in trainer.optimizers}))
        self._event(names.STARTED_EVENT, {"scheduled_steps": _finite(total), "guard": self.guard})

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.steps_read = trainer.global_step  # more than 0 after a checkpoint
        self._watch_clipping(trainer, pl_module)

    def on_before_backward(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: Tensor
    ) -> None:
        loss = loss.detach().reshape(())
        self._loss = loss if self._loss is None else self._loss + loss  # micro-batches of one step
        self._micro_batches += 1

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: Optimizer
    ) -> None:
        gradients = gradients_of(optimizer)
        tensor_norms = tensor_norms_of(gradients)
        norm = torch.linalg.vector_norm(torch.stack(tensor_norms)) if tensor_norms else get_total_norm(gradients)
        loss = None
        if self._loss is not None:  # it is if a module calls loss.backward() by itself
            # Lightning divides each micro-batch's loss by their usual number; an epoch's last step may have fewer.
            loss = self._loss.to(norm) * (trainer.accumulate_grad_batches / self._micro_batches)
        self._loss, self._micro_batches = None, 0
        finite = torch.isfinite(norm) if loss is None else torch.isfinite(norm) & torch.isfinite(loss)
        guard_step(optimizer, gradients, ~finite)
        learning_rate = optimizer.param_groups[0]["lr"]
        if isinstance(learning_rate, Tensor):
            learning_rate = learning_rate.detach().clone()  # read with the block; a schedule changes it in place
        self._step = self.latest = Step(loss, norm, norm, None, learning_rate, tensor_norms)
        if not pl_module.automatic_optimization:
            self._block.append(self._step)
            self._step = None

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._step is not None:  # here, since an optimiser like LBFGS evaluates one step several times
            self._block.append(self._step)
            self._step = None
        if len(self._block) >= self.block_steps:
            self._read_block(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._read_block(trainer)
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if self.val_loss_name not in logged:
            return
        step = max(self.steps_read - 1, 0)
        loss = logged[self.val_loss_name]
        measures = {name: logged[name] for name in self._measures if name in logged}
        self.validations.append(Validation(step, loss, measures))
        points = {name: value for name, value in logged.items() if name.startswith(names.VAL_PREFIX)}
        self._record(step, {**points, f"{names.VAL_PREFIX}{self.val_loss_name}": loss})
        self._end_early(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._read_block(trainer)
        if self._epoch_losses:
            self._epochs.append(Validation(self.steps_read - 1, float(np.mean(self._epoch_losses))))
            self._epoch_losses = []

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._undo.close()
        self._read_block(trainer)
        self._close_window()
        self._note_spikes(self._spikes.finish())
        scheduled = trainer.estimated_stepping_batches
        last_step = (int(scheduled) if math.isfinite(scheduled) else self.steps_read) - 1
        self._conclude(max(last_step, self.steps_read - 1, 0))

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        if self.outcome is not Outcome.RUNNING:
            return
        self.outcome = outcome_of(exception)
        self._undo.close()
        with suppress(RuntimeError):  # after a device error the block can't be read
            self._read_block(trainer)
        self._event(names.TAGS_EVENT, {names.OUTCOME: str(self.outcome), names.REASON: one_line(exception)})

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._flush()
        kept = {name: copy.copy(getattr(self, name)) for name in KEPT}
        kept |= {name: [astuple(v) for v in getattr(self, name)] for name in KEPT_VALIDATIONS}
        # By place: Lightning's own way takes only one callback of a kind
        checkpoint.setdefault("fnostab.monitors", {})[self._place(trainer)] = kept | {
            "spikes": self._spikes.state_dict()
        }

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        kept = checkpoint.get("fnostab.monitors", {}).get(self._place(trainer))
        if kept is None:  # a checkpoint from before there was a monitor
            return
        for name in KEPT:
            setattr(self, name, copy.copy(kept[name]))
        for name in KEPT_VALIDATIONS:
            setattr(self, name, [Validation(*v) for v in kept[name]])
        self._spikes.load_state_dict(kept["spikes"])

    def _place(self, trainer: lightning.Trainer) -> int:
        return [c for c in trainer.callbacks if isinstance(c, StabilityMonitor)].index(self)

    # Reaching into the training

    def _watch_clipping(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take the norm between clipping and the step, where Lightning has no hook.

        After the step is too late: SGD with Nesterov momentum adds it to the gradients in place.
        """
        clip = pl_module.configure_gradient_clipping
        clips = _clips(trainer, pl_module)

        def clip_and_measure(optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
            clip(optimizer, *args, **kwargs)
            if clips and self._step is not None:
                fraction = getattr(pl_module, "clip_fraction", None)
                self._step = replace(self._step, clipped=get_total_norm(gradients_of(optimizer)), fraction=fraction)

        own = vars(pl_module).get("configure_gradient_clipping")  # most modules define it in their class
        clip_and_measure.replaced = getattr(own, "replaced", own)  # type: ignore[attr-defined]
        pl_module.configure_gradient_clipping = clip_and_measure
        self._undo.callback(_unwatch_clipping, pl_module)
        for optimizer in trainer.optimizers:
            self._undo.callback(release, optimizer)

    # Reading and judging

    def _read_block(self, trainer: lightning.Trainer) -> None:
        self._flush()
        if self.first_nonfinite_step is not None and self.after_failure == "stop":
            trainer.should_stop = True

    def _flush(self) -> None:
        """Bring a block of steps to the host: the only place that waits for the device."""
        if not self._block:
            return
        steps = self._block.copy()
        rows = torch.stack([step.numbers() for step in steps]).tolist()
        self._block.clear()
        for step, row in zip(steps, rows, strict=True):
            self._take(self.steps_read, step, *row)
            self.steps_read += 1

    def _take(self, step: int, seen: Step, norm: float, clipped: float, loss: float, fraction: float) -> None:
        point = {names.GRAD_NORM: norm, names.GRAD_NORM_CLIPPED: clipped}
        point[names.LEARNING_RATE] = float(seen.learning_rate)
        if seen.loss is not None:
            point[names.TRAIN_LOSS] = loss
            self._epoch_losses.append(loss)
            self._losses.append(loss)
        if seen.fraction is not None:
            point[names.CLIP_FRACTION] = fraction
        self._record(step, point)
        if math.isfinite(norm):
            self._grad_norms.append(norm)
            self._window.append(norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._take_nonfinite(step, loss, norm)
        self._note_spikes(self._spikes.take(step, norm, None if seen.loss is None else loss))
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

    def _note_spikes(self, spikes: list[Spike]) -> None:
        for spike in spikes:
            self._event(names.SPIKE_EVENT, spike.payload())
            self._record(spike.peak_step, {names.SPIKE: spike.norm})

    def _close_window(self, step: int | None = None) -> None:
        if self._window:
            self._record(self.steps_read - 1 if step is None else step, {names.GRAD_NORM_WINDOW_MAX: max(self._window)})
            self._window.clear()

    def _end_early(self, trainer: lightning.Trainer) -> None:
        if self.after_failure == "continue":
            return
        if not math.isfinite(self.validations[-1].loss):
            trainer.should_stop = True
        if self.steps_read > max(self.warmup_steps, trainer.estimated_stepping_batches / 4):
            trainer.should_stop |= ends_early(self.validations, self.rules)

    def _conclude(self, last_scheduled_step: int) -> None:
        validations = self.validations or self._epochs
        judgement = judge(
            validations,
            first_nonfinite_step=self.first_nonfinite_step,
            last_step=last_scheduled_step,
            baseline=self.baseline if self.validations else None,
            rules=self.rules,
            training=self._losses,
        )
        if not self.validations and len(validations) >= 2:
            note = f"exploded: on the training loss of each epoch, no {self.val_loss_name!r} was logged"
            judgement = replace(judgement, not_judged=(*judgement.not_judged, note))
        self.judgement, self.outcome, self.failure_step = judgement, judgement.outcome, judgement.failure_step
        self._record(max(self.steps_read - 1, 0), self.summary())
        self._event(names.TAGS_EVENT, _tags(judgement))

    def summary(self) -> dict[str, float]:
        """One number each of the whole training, under the names of `fnostab.record.names`; finite ones only."""
        last_step = max(self.steps_read - 1, 0)
        late = np.array(self._grad_norms[len(self._grad_norms) // 2 :] or [math.nan])
        losses = [v.loss for v in self.validations]
        values = {
            names.NAN_EVENTS: self.nan_events,
            names.INF_EVENTS: self.inf_events,
            **self._spikes.summary(),
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


def _unwatch_clipping(pl_module: lightning.LightningModule) -> None:
    watched = vars(pl_module).get("configure_gradient_clipping")
    if not hasattr(watched, "replaced"):  # another monitor has been here
        return
    del pl_module.configure_gradient_clipping
    if watched.replaced is not None:
        pl_module.configure_gradient_clipping = watched.replaced


def _clips(trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> bool:
    if trainer.gradient_clip_val is not None:
        return True
    default = lightning.LightningModule.configure_gradient_clipping
    overridden = type(pl_module).configure_gradient_clipping is not default
    return overridden and getattr(pl_module, "gradient_clip_val", True) is not None


def _tags(judgement: Judgement) -> dict[str, str]:
    tags = {
        names.OUTCOME: str(judgement.outcome),
        names.RULES_HELD: "; ".join(judgement.rules_held),
        names.NOT_JUDGED: "; ".join(judgement.not_judged),
        names.FAILURE_STEP: "" if judgement.failure_step is None else str(judgement.failure_step),
        names.FAILURE_AFTER: "" if judgement.known_good_step is None else str(judgement.known_good_step),
    }
    return {name: text for name, text in tags.items() if text}
