"""Run a failure again from its black box, and say where it began.

The replay goes through the same trainer, data order, clipping and judging as the trial, from the
state that was kept to a little past the failing step: bit by bit the same on the CPU. Every module is
watched on the way. With a setting changed it tests a hypothesis: does the failure still happen?
"""

import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from fnostab import names
from fnostab.callbacks import Snapshots, StabilityMonitor
from fnostab.callbacks.black_box import BLACK_BOX_FILE, HISTORY_FILE, STATE_FILE
from fnostab.callbacks.module_probe import ModuleProbe, ModuleState
from fnostab.config import TrialConfig, flatten
from fnostab.errors import CheckpointError, ConfigError
from fnostab.outcomes import FAILURES, Outcome, looks_failed
from fnostab.training.setup import choose_device, set_up
from fnostab.trial import TrialSpec

__all__ = ["KeptFailure", "Replay", "find_black_box", "replay"]

OUT_OF_RANGE = 100.0  # times the root mean square of the module's output at the first replayed step
STEPS_AFTER = 2  # a non-finite one, so that what came of it is seen
STEPS_AFTER_CHANGE = 64  # the same with a setting changed: the failure may only be put off
FIXED = ("data.", "vary", "training.batch_size", "training.epochs", "training.optimizer", "training.loss")


@dataclass(frozen=True)
class KeptFailure:
    """What a black box says of the failure.

    Attributes:
        folder: that holds it.
        trial: what was trained.
        outcome: of the trial.
        failure_step: 0-based optimiser step.
        batch: indices of the training patterns of that step.
        losses: training loss by step, as far as the history goes back.
        grad_norms: the same of the gradient norm before clipping.
    """

    folder: Path
    trial: TrialSpec
    outcome: Outcome
    failure_step: int
    batch: tuple[int, ...]
    losses: Mapping[int, float]
    grad_norms: Mapping[int, float]

    @classmethod
    def read(cls, folder: Path) -> "KeptFailure":
        """Read what `fnostab.callbacks.black_box` wrote.

        Raises:
            CheckpointError: it is damaged or incomplete.
        """
        try:
            about = json.loads((folder / BLACK_BOX_FILE).read_text())
            history = load_file(folder / HISTORY_FILE)
            steps = history["step"].tolist()
            return cls(
                folder,
                TrialSpec.model_validate(about["trial"]),
                Outcome(about["outcome"]),
                int(about["failure_step"]),
                tuple(map(int, about["batch"])),
                dict(zip(steps, history["loss"].tolist(), strict=True)),
                dict(zip(steps, history["grad_norm"].tolist(), strict=True)),
            )
        except (OSError, ValueError, KeyError, TypeError, SafetensorError, ValidationError) as error:
            raise CheckpointError(f"{folder} is not a black box that can be read: {error}") from error


@dataclass(frozen=True)
class Replay:
    """What came of it.

    Attributes:
        failure: that was replayed.
        changed: settings that differ from the trial's.
        losses: training loss of each replayed step.
        grad_norms: gradient norm before clipping of each.
        modules: by step and module, in the order in which the modules ran.
        n_compared: steps of the trial's own record that were compared with the replay.
        n_equal: of them, how many gave the same loss and norm to the last bit.
        fails: whether the failure happened.
        outcome: of the replayed stretch alone.
        culprit: (step, module, "output" or "gradient", what) of the first that is not finite or out of range.
        focus: step to look at: the culprit's, the failing one, or that of the largest gradient.
    """

    failure: KeptFailure
    changed: Mapping[str, Any]
    losses: Mapping[int, float]
    grad_norms: Mapping[int, float]
    modules: Mapping[int, Mapping[str, ModuleState]]
    n_compared: int
    n_equal: int
    fails: bool
    outcome: Outcome
    culprit: tuple[int, str, str, str] | None
    focus: int


def find_black_box(path: Path) -> Path:
    """The black box at ``path``, or of the trial whose folder it is.

    Raises:
        CheckpointError: there is none.
    """
    for folder in (path, path / names.BLACK_BOX, path / "artifacts" / names.BLACK_BOX):
        if (folder / BLACK_BOX_FILE).is_file():
            return folder
    raise CheckpointError(
        f"there is no black box in {path}: trials that fail keep one in artifacts/{names.BLACK_BOX}, others do not"
    )


def replay(failure: KeptFailure, settings: Mapping[str, Any] | None = None, *, data_dir: Path | None = None) -> Replay:
    """Train again from the kept state to a little past the failing step.

    Args:
        failure: to replay.
        settings: dotted names and the values that they get instead of the trial's.
        data_dir: where data sets are cached; the trial's own by default.

    Raises:
        ConfigError: a setting is not known, or can't be changed in the middle of a training.
        CheckpointError: the network does not fit the state any more.
    """
    changed = dict(settings or {})
    spec = failure.trial.model_copy(update={"config": _changed(failure.trial.config, changed)})
    if data_dir is not None:
        spec = spec.model_copy(update={"data_dir": str(data_dir)})
    training = set_up(spec)
    curves = _Curves()
    monitor = training.monitor(curves)
    probe = ModuleProbe()
    with tempfile.TemporaryDirectory() as scratch:
        callbacks = [
            monitor,
            _Restore(training.config, changed),
            Snapshots(monitor, Path(scratch)),
            probe,
            _Stop(failure, bool(changed)),
        ]
        try:
            device = choose_device(training.config.execution.device)
            training.fit(callbacks, device, Path(scratch), failure.folder / STATE_FILE)
        except RuntimeError as error:
            if "loading state_dict" not in str(error):
                raise
            raise CheckpointError(f"the network has other parameters than the one that failed: {error}") from error
    return _conclude(failure, changed, monitor, curves, probe.steps)


def _changed(config: TrialConfig, settings: Mapping[str, Any]) -> TrialConfig:
    for name in settings:
        if name.startswith(FIXED):
            raise ConfigError(
                f"{name} can't be changed in the middle of a training: "
                "learning rate, weight decay, clipping and what has no parameters can"
            )
    return TrialConfig.from_dotted({**flatten(config), **settings})


class _Curves:
    """A sink that keeps loss and norm by step."""

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}
        self.grad_norms: dict[int, float] = {}

    def record(self, step: int, values: Mapping[str, float]) -> None:
        if names.GRAD_NORM in values:
            self.losses[step], self.grad_norms[step] = values[names.TRAIN_LOSS], values[names.GRAD_NORM]

    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        pass


class _Restore(Callback):
    """Puts changed settings of the optimiser in place of those that came with its state."""

    def __init__(self, config: TrialConfig, changed: Mapping[str, Any]) -> None:
        self.config = config
        self.changed = changed

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        training = self.config.training
        (optimizer,) = trainer.optimizers
        for group in optimizer.param_groups:
            if "training.weight_decay" in self.changed:
                group["weight_decay"] = training.weight_decay
            if "training.learning_rate" in self.changed:
                base = group.get("initial_lr", group["lr"])
                group["lr"] *= training.learning_rate / base
                if "initial_lr" in group:
                    group["initial_lr"] = training.learning_rate
        for scheduler in trainer.lr_scheduler_configs:
            scheduler.scheduler.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]


class _Stop(Callback):
    """Ends the replay a little past the failing step, or at the validation that showed the failure."""

    def __init__(self, failure: KeptFailure, changed: bool) -> None:
        self.at_validation = failure.outcome is not Outcome.NONFINITE
        self.last_step = failure.failure_step
        if not self.at_validation:
            self.last_step += STEPS_AFTER_CHANGE if changed else STEPS_AFTER

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self.at_validation and trainer.global_step > self.last_step:
            trainer.should_stop = True

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.global_step > self.last_step:
            trainer.should_stop = True


def _conclude(
    failure: KeptFailure,
    changed: Mapping[str, Any],
    monitor: StabilityMonitor,
    curves: _Curves,
    modules: Mapping[int, Mapping[str, ModuleState]],
) -> Replay:
    same = [
        (curves.losses[step] == loss and curves.grad_norms[step] == failure.grad_norms[step])
        or not math.isfinite(loss + failure.grad_norms[step] + curves.losses[step] + curves.grad_norms[step])
        for step, loss in failure.losses.items()
        if step in curves.losses
    ]
    fails = looks_failed(monitor.validations, monitor.constant_loss, monitor.rules) or monitor.outcome in FAILURES
    if failure.outcome is Outcome.NONFINITE:
        fails = monitor.first_nonfinite_step is not None
    culprit = _first_out_of_range(modules)
    finite = {step: norm for step, norm in curves.grad_norms.items() if math.isfinite(norm)}
    if culprit is not None:
        focus = culprit[0]
    elif failure.failure_step in modules and failure.outcome is Outcome.NONFINITE:
        focus = failure.failure_step
    else:
        focus = max(finite, key=lambda step: finite[step])
    return Replay(
        failure,
        changed,
        curves.losses,
        curves.grad_norms,
        modules,
        len(same),
        sum(same),
        fails,
        monitor.outcome,
        culprit,
        focus,
    )


def _first_out_of_range(modules: Mapping[int, Mapping[str, ModuleState]]) -> tuple[int, str, str, str] | None:
    first = modules[min(modules)]
    for step in sorted(modules):
        at_step = modules[step]
        for name, state in at_step.items():  # in the order of the forward pass
            usual = first[name].output_rms or math.inf
            if state.output_max is not None and not math.isfinite(state.output_max):
                return step, name, "output", "not finite"
            if state.output_rms is not None and state.output_rms > OUT_OF_RANGE * usual:
                return step, name, "output", f"{state.output_rms / usual:.3g} times that of step {min(modules)}"
        for name, state in reversed(list(at_step.items())):  # of the backward pass
            if state.gradient is not None and not math.isfinite(state.gradient):
                return step, name, "gradient", "not finite"
    return None
