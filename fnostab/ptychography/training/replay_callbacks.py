"""Lightning callbacks of a replay, which change settings at its start and stop it early."""

from collections.abc import Callable, Mapping
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from fnostab.monitor import StabilityMonitor
from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.training.kept_failure import KeptFailure
from fnostab.record import names
from fnostab.record.outcomes import Outcome

STEPS_AFTER = 2  # steps after a non-finite one, to show its consequences
STEPS_AFTER_CHANGE = 64  # steps after the failing one if settings are changed, which may only delay the failure
RATE = {f"training.{name}" for name in ("learning_rate", "schedule", "cosine_floor", "warmup_steps", "warmup_epochs")}


class Curves:
    """Sink that records loss and gradient norm by step."""

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}
        self.grad_norms: dict[int, float] = {}

    def record(self, step: int, values: Mapping[str, float]) -> None:
        if names.GRAD_NORM in values:
            self.losses[step], self.grad_norms[step] = values[names.TRAIN_LOSS], values[names.GRAD_NORM]

    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        pass


class ChangedSettings(Callback):
    """Apply changed optimiser settings, which loading the saved state has overwritten."""

    def __init__(self, config: TrialConfig, changed: Mapping[str, Any]) -> None:
        self.config = config
        self.changed = changed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        (optimizer,) = trainer.optimizers
        module: Any = pl_module
        wanted = module.make_optimizer().param_groups
        for group, new in zip(optimizer.param_groups, wanted, strict=True):
            if "training.weight_decay" in self.changed:
                group["weight_decay"] = new["weight_decay"]
            if "training.momentum" in self.changed and "momentum" in group:
                group["momentum"] = self.config.training.momentum
        if not self.changed.keys() & RATE:
            return
        rates = [new["lr"] for new in wanted]
        factor = 1.0
        for config in trainer.lr_scheduler_configs:
            schedule: Any = config.scheduler  # a LambdaLR, whose rates depend only on the step
            schedule.last_epoch = trainer.global_step
            schedule.base_lrs = rates
            factor = schedule.lr_lambdas[0](trainer.global_step)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["initial_lr"], group["lr"] = rate, rate * factor


class ReplayEnd(Callback):
    """Stop the replay a few steps past the failing step, or at the validation that detected the failure."""

    def __init__(
        self, failure: KeptFailure, monitor: StabilityMonitor, changed: bool, progress: Callable[[int, int], None]
    ) -> None:
        self.monitor = monitor
        self.progress = progress
        self.at_validation = failure.outcome is not Outcome.NONFINITE
        self.last_step = failure.failure_step
        if changed:
            self.last_step += STEPS_AFTER_CHANGE
        elif not self.at_validation:
            self.last_step += STEPS_AFTER

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.progress(trainer.global_step - 1, min(self.last_step, int(trainer.estimated_stepping_batches) - 1))
        seen = self.monitor.first_nonfinite_step
        if seen is not None and trainer.global_step > seen + STEPS_AFTER:
            trainer.should_stop = True
        if not self.at_validation and trainer.global_step > self.last_step:
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step > self.last_step:
            trainer.should_stop = True
