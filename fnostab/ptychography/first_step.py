"""Try one optimiser step of each arm before a study starts, so that an error occurs once and not in every trial."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from fnostab.errors import LaunchError
from fnostab.ptychography.data import GridLinesData
from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.training.setup import Training, choose_device
from fnostab.ptychography.training.step_cost import bare_trial
from fnostab.ptychography.user_parts import one_line_with_place
from fnostab.record.outcomes import Outcome
from fnostab.record.process_end import outcome_of

MAKE_NO_DIFFERENCE = {"learning_rate", "epochs", "stress_test"}  # irrelevant to whether a step is possible


def insist_on_first_step(configs: Mapping[str, TrialConfig], *, here: bool) -> None:
    """Check that every arm can make a training step with its optimiser, clipping, precision and device.

    Arms with the same relevant settings share one step.

    Args:
        configs: configurations by arm.
        here: whether trials run on this machine; otherwise the step is made on the CPU.

    Raises:
        LaunchError: a step fails; one line with arms and causes.
    """
    alike: dict[str, list[str]] = {}
    for arm, config in configs.items():
        alike.setdefault(_key(config), []).append(arm)
    refusals = []
    for arms in alike.values():
        config = configs[arms[0]]
        if (why := failure_of_first_step(config if here else _on_cpu(config))) is not None:
            refusals.append(f"{_named(arms)} can't make a training step: {why}")
    if refusals:
        raise LaunchError("; ".join(refusals))


def failure_of_first_step(config: TrialConfig) -> str | None:
    """Train a new network for one step on random patterns, as a trial does, including the monitor.

    Returns:
        The error in one line; None if the step succeeds or runs out of memory, which other processes may use at the
        moment. `Preflight.insist_on_fit` checks the memory.
    """
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            training = _of_one_batch(config)
            callbacks = [training.monitor(_Nowhere()), _OneStep()]
            training.fit(callbacks, choose_device(config.execution.device), Path(folder))
    except (Exception, SystemExit) as error:
        return None if outcome_of(error) is Outcome.OOM else one_line_with_place(error, *config.own.values())
    return None


class _Nowhere:
    """Sink that discards everything; without a sink the monitor would use that of a surrounding trial."""

    def record(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        pass


class _OneStep(Callback):
    """Stop training after the first batch."""

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: object, batch: object, i: int
    ) -> None:
        trainer.should_stop = True


def _of_one_batch(config: TrialConfig) -> Training:
    module, batch = bare_trial(config, "cpu")
    patterns, _ = batch()
    data = replace(module.data, train=replace(module.data.train, amplitudes=patterns))
    return Training(config, data, module, GridLinesData(data, len(patterns), 0), 1.0, 0, config.monitor.outcome_rules)


def _on_cpu(config: TrialConfig) -> TrialConfig:
    """Configuration changed to run on a CPU."""
    execution = config.execution
    precision = "float32" if execution.convolution_precision == "tf32" else execution.convolution_precision
    changed = execution.model_copy(update={"device": "cpu", "convolution_precision": precision})
    return config.model_copy(update={"execution": changed})


def _key(config: TrialConfig) -> str:
    training = config.training.model_dump(exclude=MAKE_NO_DIFFERENCE)
    parts = (config.model.model_dump(), training, config.execution.model_dump(), config.data.N)
    return json.dumps([*parts, config.data.probe.model_dump(), config.data.path, config.data.fit])


def _named(arms: list[str]) -> str:
    return f"arm{'' if len(arms) == 1 else 's'} {', '.join(arms)}"
