"""Watch every optimiser step and classify the outcome of the training.

Works with any LightningModule: ``Trainer(callbacks=[StabilityMonitor()])``. With a sink it also
records the loss, the gradient norm before and after clipping, the clipped fraction and the learning
rate of every step.

A step never waits for the device. Measurements stay on the device until a block of steps, or those of the
last second, are read at once; the step of the first non-finite value is exact nevertheless. A non-finite loss or
gradient never reaches the weights (`nonfinite_guard`).
"""

import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from fnostab.errors import one_line
from fnostab.monitor.logged import newly_logged, recorded_as, spellings, validation_numbers
from fnostab.monitor.observed import Observed
from fnostab.monitor.optimizer_curve import Curve
from fnostab.monitor.ranks import FitResult, agreed, of_first, refuse_sharded
from fnostab.monitor.schedule import scheduled_steps
from fnostab.monitor.sinks import SinkWriter, last_step_of
from fnostab.monitor.steps import Step
from fnostab.monitor.watches import Watches
from fnostab.record import names
from fnostab.record.journal import Sink
from fnostab.record.outcome_rules import OutcomeRules, Validation
from fnostab.record.outcome_tags import outcome_tags
from fnostab.record.outcomes import Judgement, Outcome
from fnostab.record.process_end import outcome_of
from fnostab.record.program_journal import Recording
from fnostab.record.recorder import AFTER_FAILURE_VARIABLE, session_sink

CHECKPOINT_KEY = "fnostab.monitors"
READ_S = 1.0  # longest time between two reads from the device, for those who watch and for a process that dies
UNKNOWN_WINDOW_STEPS = 100  # if the length of the training is unknown
NOTHING_SEEN = "no optimiser step was observed: a step is a call of `step` of one of the Trainer's optimisers"


class StabilityMonitor(Callback):
    """Record every optimiser step and judge the training by the rules of docs/outcomes.md.

    A step is one call of an optimiser's ``step``: with gradient accumulation it covers several batches, and LBFGS
    evaluates the loss several times per step (the first evaluation counts). Each optimiser has its own curve and step
    count; metrics of the second one end in ``/optimizer_1``, and so on.

    The gradient norm is measured at the end of the backward pass, before any clipping, and again on the gradient
    that the optimiser uses. Numbers that can't be measured are left out, and an event ``not_measured`` reports each
    metric once. A gradient norm that overflows float32 counts as non-finite: so do the squared gradients that Adam
    keeps.

    A monitor may watch several fits one after the other; each needs its own sink. A training run that resumes from
    a Lightning checkpoint continues the step count, and its earlier observations count for the outcome too. With
    several processes (``ddp``), a step that is not finite in one is skipped in all; the first one judges and
    records.

    Args:
        sink: receives points and events; None uses the trial's own in a study, and keeps only the outcome elsewhere.
        rules: what counts as a failure. In a study its own rules judge; a failure by rules that are given here, or by
            ``baseline``, counts as announced by the script.
        val_loss_name: name of the logged validation loss; ``val/loss`` and ``val_loss`` are equivalent. Without
            one, `exploded` is judged on the mean training loss of each epoch, and `judgement` says so.
        baseline: validation loss of an output that has learnt nothing. None uses that of the rules; without
            either, `stagnated` is not judged.
        warmup_steps: steps during which a constant output never ends the training early.
        block_steps: steps after which a failure ends the training; they are read from the device then, and once a
            second.
        after_failure: "stop" ends the training at a certain failure, "continue" does not. None follows the
            study file, and stops outside a study.
        layer_norms_every: interval in steps between records of every layer's gradient norm; None for no records.

    Attributes:
        outcome: outcome of the training; ``running`` until it has ended.
        failure_step: 0-based optimiser step of the failure; None without a failure.
        judgement: the outcome with its evidence; None until the training has ended.
        curves: curve of each optimiser: its steps, its first non-finite one.
        judgements: `judgement` of each optimiser.
        guard: description of how the weights are guarded against a non-finite gradient.
        made: steps of the current batch, in order, on the device.
        weight_norms: whether these steps include weight norms; set before training, for example by `BlackBox`.

    Raises:
        ConfigError: ``sink`` can't be recorded into; or, at the start of training, gradients are sharded (FSDP) or the
            sink already holds another fit.
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
        after_failure: Literal["stop", "continue"] | None = None,
        layer_norms_every: int | None = None,
    ) -> None:
        self.sink = sink
        self._found: Recording | None = None  # sink of the trial, unless one was given
        self.rules = rules or OutcomeRules()
        self._has_rules = rules is not None or baseline is not None
        self.val_loss_name = val_loss_name
        self.baseline = self.rules.baseline if baseline is None else baseline
        self.warmup_steps = warmup_steps
        self.block_steps = block_steps
        self.after_failure = after_failure or os.environ.get(AFTER_FAILURE_VARIABLE, "stop")
        self.layer_norms_every = layer_norms_every
        self.weight_norms = False
        self._result = FitResult()
        self._forget()

    def _forget(self) -> None:
        """Reset all state of an earlier fit."""
        self._result.begin()
        self._seen = Observed(self.rules, self.baseline, self.val_loss_name)
        self._writer = SinkWriter(self.sink)
        self._watches = Watches()
        self._kept: Mapping[str, Any] | None = None  # from a checkpoint
        self._logged_before: Mapping[str, Any] = {}  # the Trainer keeps what earlier validations logged
        self._epoch_began: tuple[int, Mapping[str, Any]] = 0, {}  # steps by then, and what was logged
        self._taken_by_epoch: set[str] | None = None  # names taken at the end of the epoch; None within one
        self._validation_names: set[str] = set()  # logged by the Trainer's validations
        self._scheduled = math.inf
        self._block_began = 0  # steps by then
        self._read_s = 0.0

    @property
    def outcome(self) -> Outcome:
        return self._result.told()[0]

    @property
    def judgement(self) -> Judgement | None:
        return self._result.told()[1]

    @property
    def failure_step(self) -> int | None:
        first, judgement = self.first_nonfinite_step, self.judgement
        return judgement.failure_step if judgement is not None else first

    @property
    def first_failed(self) -> Curve | None:
        """Curve with the earliest non-finite step in this process; None without one."""
        return self._seen.first_failed

    @property
    def first_nonfinite_step(self) -> int | None:
        failed = self.first_failed
        return self._result.told()[2] if failed is None else failed.first_nonfinite_step

    @property
    def steps_read(self) -> int:
        return self._seen.steps

    @property
    def curves(self) -> Sequence[Curve]:
        return self._seen.curves

    @property
    def validations(self) -> Sequence[Validation]:
        return self._seen.validations

    @property
    def judgements(self) -> tuple[Judgement, ...]:
        return self._seen.judgements

    @property
    def made(self) -> list[Step]:
        return self._watches.made

    @property
    def guard(self) -> str:
        return self._watches.guard

    @property
    def failed_optimizer(self) -> int:
        """Index of the optimiser with the earliest non-finite step; 0 without one."""
        failed = self._seen.first_failed
        return 0 if failed is None else failed.index

    # Hooks, in the order in which Lightning calls them

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        refuse_sharded(trainer)
        if self.sink is self._found:
            self.sink = self._found = session_sink(self._found)
        self._forget()
        self._writer.writes = trainer.is_global_zero
        _put_before_those_that_clip(self, trainer)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._kept = checkpoint.get(CHECKPOINT_KEY, {}).get(self._place(trainer))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Not earlier: only now do the loaders exist, with their state restored
        self._scheduled = scheduled_steps(trainer)
        self._watch(trainer, pl_module)
        self._seen.restore(self._kept, trainer.global_step)
        self._kept = None
        self._writer.refuse_second_fit(self.steps_read)
        scheduled = (
            int(self._scheduled) if math.isfinite(self._scheduled) and pl_module.automatic_optimization else None
        )
        self._writer.event(names.STARTED_EVENT, {"scheduled_steps": scheduled, "guard": self.guard})
        self._watches.attach(self.curves)
        self._begin_block()
        self._epoch_began = self.steps_read, dict(trainer.callback_metrics)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._take_logged_by_epoch(trainer)
        self._epoch_began, self._taken_by_epoch = (self.steps_read, dict(trainer.callback_metrics)), None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if not self._watches.are_of(trainer):
            self._read_block(trainer)
            self._watches.detach()
            self._watch(trainer, pl_module)
            self._watches.attach(self.curves)
        self._watches.start_batch(batch_idx, trainer.current_epoch)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        self._watches.start_backward(trainer, loss)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._watches.end_backward()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self._watches.announce(optimizer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._watches.end_batch()
        if self._watches.steps - self._block_began >= self.block_steps:
            self._read_block(trainer)
        elif time.monotonic() - self._read_s > READ_S:
            self._read()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._read()
        self._logged_before = dict(trainer.callback_metrics)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._read_block(trainer)
        logged = newly_logged(trainer, self._logged_before)
        self._validation_names |= logged.keys()
        self._take_validation(trainer, logged)

    def _take_logged_by_epoch(self, trainer: Trainer) -> None:
        """Take validation metrics that the module logged at the end of an epoch, after this callback's hook."""
        steps, before = self._epoch_began
        if self._taken_by_epoch is None or self.steps_read == steps:
            return
        others = self._validation_names | self._taken_by_epoch
        logged = {name: value for name, value in newly_logged(trainer, before).items() if name not in others}
        self._taken_by_epoch |= logged.keys()
        self._take_validation(trainer, logged)

    def _take_validation(self, trainer: Trainer, logged: Mapping[str, float]) -> None:
        name = next((name for name in spellings(self.val_loss_name) if name in logged), None)
        spoilt = agreed(trainer, name is not None and not math.isfinite(logged[name]))
        points = validation_numbers(logged)
        if name is not None:
            loss = math.nan if spoilt and math.isfinite(logged[name]) else logged[name]  # NaN in another process
            points[recorded_as(name)] = loss
        if points:
            self._writer.record(self._seen.begin_validation(), points)
        if name is not None:
            self._seen.validate(loss, logged)
        self._end_early(trainer, judged=name is not None)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._read_block(trainer)
        self._seen.end_epoch()
        self._taken_by_epoch = set()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._watches.detach()
        self._read_block(trainer)
        self._take_logged_by_epoch(trainer)
        for curve in self.curves:
            curve.finish()
        last_step = self.steps_read - 1
        if math.isfinite(self._scheduled) and pl_module.automatic_optimization:
            last_step = max(int(self._scheduled) - 1, last_step)
        self._conclude(trainer, max(last_step, 0))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._result.ended:
            return
        self._watches.detach()
        with suppress(RuntimeError):  # after a device error nothing can be read
            self._watches.read(self.curves)
        with suppress(RuntimeError):
            self._watches.take_step_under_way(self._seen, exception)
        seen = self._seen.judge(max(self.steps_read - 1, 0), self.first_nonfinite_step)
        if seen.outcome is Outcome.NONFINITE:  # a non-finite value takes precedence over the exception
            judgement = replace(seen, rules_held=(Outcome.NONFINITE,), not_judged=())
            self._end(judgement.outcome, judgement)
        else:
            judgement = Judgement(outcome_of(exception))
            self._end(judgement.outcome)
        exits = isinstance(exception, SystemExit) and not trainer.received_sigterm
        if not (exits and self.sink is self._found):  # a program's exit status tells
            self._tell_end(judgement, one_line(exception))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._result.ended:
            return
        # Nothing to train: no steps were requested, or the checkpoint is from the end
        self._make_curves(len((self._kept or {}).get("curves", ())), pl_module)
        self._seen.restore(self._kept, trainer.global_step)
        self._kept = None
        self._conclude(trainer, max(self.steps_read - 1, 0))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._begin_block()
        if not self._result.ended:
            self._take_logged_by_epoch(trainer)
        # Keyed by position: Lightning's own state dict allows only one callback per class
        checkpoint.setdefault(CHECKPOINT_KEY, {})[self._place(trainer)] = self._seen.state_dict()

    def _place(self, trainer: Trainer) -> int:
        return [c for c in trainer.callbacks if isinstance(c, StabilityMonitor)].index(self)

    def _watch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._watches = self._watches.renewed(trainer, pl_module, weight_norms=self.weight_norms)
        self._make_curves(len(self._watches), pl_module)

    def _make_curves(self, n: int, pl_module: LightningModule) -> None:
        window = UNKNOWN_WINDOW_STEPS
        if math.isfinite(self._scheduled):
            window = max(1, math.ceil(self._scheduled / names.WINDOWS))
        parameter_names = {id(p): name for name, p in pl_module.named_parameters()}
        told = (self._writer.record, self._curve_event, parameter_names, window, self.layer_norms_every)
        self._seen.curves += [Curve(i, *told) for i in range(len(self.curves), n)]

    # Reading and judging

    def _read(self) -> None:
        self._watches.read(self.curves)
        self._read_s = time.monotonic()

    def _begin_block(self) -> None:
        self._read()
        self._block_began = self._watches.steps

    def _read_block(self, trainer: Trainer) -> None:
        """Read, and end a failed training: only at the end of a block, so that when does not depend on the clock."""
        self._begin_block()
        if self.after_failure == "stop" and any(curve.failed_now for curve in self.curves):
            trainer.should_stop = True

    def _end_early(self, trainer: Trainer, *, judged: bool) -> None:
        ends = False
        if judged and self.after_failure == "stop":
            ends = self._seen.certain_failure(max(self.warmup_steps, self._scheduled / 4))
        trainer.should_stop |= of_first(trainer, ends)

    def _conclude(self, trainer: Trainer, last_scheduled_step: int) -> None:
        judgement = of_first(trainer, self._seen.judge(last_scheduled_step))
        if judgement.outcome is not Outcome.NONFINITE and not any(curve.observed for curve in self.curves):
            self._end(Outcome.INFRA_ERROR)
            self._tell_end(Judgement(Outcome.INFRA_ERROR), NOTHING_SEEN)
        else:
            self._end(judgement.outcome, judgement)
            self._writer.record(max(self.steps_read - 1, 0), self.summary())
            self._tell(judgement)

    def _tell_end(self, judgement: Judgement, reason: str) -> None:
        """Record how a fit ended, unless it never began to train and the sink holds an earlier one."""
        if self.curves or last_step_of(self.sink) < 0:
            self._tell(judgement, reason)

    def _tell(self, judgement: Judgement, reason: str | None = None) -> None:
        """Record an outcome; in a study, whose rules judge later, only a failure by rules that the script gave."""
        if self.sink is not None and self.sink is self._found:
            by_defaults = judgement.outcome is not Outcome.NONFINITE and not self._has_rules
            if judgement.outcome is Outcome.CONVERGED or (by_defaults and judgement.rules_held):
                return
            judgement = replace(judgement, rules_held=(), not_judged=())
        self._writer.event(names.TAGS_EVENT, outcome_tags({**vars(judgement), "reason": reason}))

    def _end(self, outcome: Outcome, judgement: Judgement | None = None) -> None:
        self._result.end(outcome, judgement, self.first_nonfinite_step, shares=self._writer.writes)

    def summary(self) -> dict[str, float]:
        """Summary metrics of the whole training run, under the names in `fnostab.record.names`; finite values only."""
        return self._seen.summary(self.failure_step)

    def _curve_event(self, name: str, payload: Mapping[str, Any]) -> None:
        self._writer.event(name, payload)
        if name == names.NONFINITE_EVENT and sum(c.first_nonfinite_step is not None for c in self.curves) == 1:
            # at once, since the failure may end the process
            if self._writer.writes:
                self._result.announce(payload["step"])
            failure = {"outcome": Outcome.NONFINITE, "failure_step": payload["step"]}
            self._writer.event(names.TAGS_EVENT, outcome_tags(failure))


def _put_before_those_that_clip(monitor: StabilityMonitor, trainer: Trainer) -> None:
    """Move the monitor before callbacks that may change the gradient at the end of the backward pass."""
    callbacks: list[Callback] = trainer.callbacks
    for place, other in enumerate(callbacks[: callbacks.index(monitor)]):
        if not isinstance(other, StabilityMonitor) and type(other).on_after_backward is not Callback.on_after_backward:
            callbacks.remove(monitor)
            callbacks.insert(place, monitor)
            return
