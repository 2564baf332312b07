"""Copy a training's state, so that it can be continued exactly.

Two recent copies are kept in memory for the black box. One from the end of an epoch is kept on disk, in case
the process dies. When a validation first looks like a failure, the copy from before it is kept until it
is known whether the trial recovers.
"""

import os
import random
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from fnostab.errors import CheckpointError
from fnostab.monitor.stability import StabilityMonitor
from fnostab.monitor.state import StateFiles, take_state, write_state
from fnostab.record.outcomes import looks_failed

GENERATIONS = 2
EVERY_STEPS = 64
SHARE = 0.02  # largest share of the time spent on writing files
LEAD_STEPS = 8  # distance of a snapshot from the step in question


class Snapshots(Callback):
    """Copy the training state regularly; the Trainer needs the plugin `StateFiles`.

    A loader with a method ``start_at(batch)`` is told where to continue; others continue from their own state, if any.

    Memory use: two copies of weights, buffers and optimiser state on the device.

    The file is written at the start and end of epochs (except the end of the last), so rarely that writing takes
    at most 2 % of the time; and from the newest copy in memory when the process is asked to end.

    Args:
        monitor: monitor of the same Trainer; must come before this callback.
        directory: folder of the trial.

    Attributes:
        resume: file to continue the trial from.
        suspect: file from before validations began to look like a failure; exists only while they do.
    """

    def __init__(self, monitor: StabilityMonitor, directory: Path) -> None:
        self.monitor = monitor
        self.resume = directory / "resume.safetensors"
        self.suspect = directory / "suspect.safetensors"
        self.recent: list[tuple[int, dict[str, Any]]] = []
        self._random_states: dict[str, Any] | None = None
        self._resume_step: int | None = None
        self._written_s = -float("inf")
        self._cost_s = 0.0

    def before(self, step: int) -> tuple[int, dict[str, Any] | Path]:
        """Latest state from a few steps before ``step``, else the earliest one, and the step at which it continues.

        Raises:
            CheckpointError: no state was kept.
        """
        kept: list[tuple[int, dict[str, Any] | Path]] = [*self.recent]
        if self._resume_step is not None and self._resume_step <= step:
            kept.append((self._resume_step, self.resume))
        if not kept:
            raise CheckpointError(f"no state from before step {step} could be kept")
        kept.sort(key=lambda one: one[0])
        early = [one for one in kept if one[0] <= step - LEAD_STEPS]
        return early[-1] if early else kept[0]

    def remove_files(self) -> None:
        """Remove the files that a finished trial does not need."""
        self.resume.unlink(missing_ok=True)
        self.suspect.unlink(missing_ok=True)

    def state_dict(self) -> dict[str, Any]:
        return {"random": _random_states()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._random_states = state_dict["random"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not isinstance(trainer.strategy.checkpoint_io, StateFiles):
            raise CheckpointError("Snapshots needs StateFiles() among the Trainer's plugins")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._random_states is not None:  # only now, since the setup before may draw random numbers
            _set_random_states(self._random_states)
        if trainer.global_step == 0:
            self._write(trainer)
        elif self.resume.exists():
            self._resume_step = trainer.global_step
        # Lightning would do this itself if the schedule had not already asked for the number of steps
        if hasattr(trainer.train_dataloader, "start_at"):
            trainer.train_dataloader.start_at(trainer.global_step % trainer.num_training_batches)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # After an epoch's last batch validation is still due, and Lightning would not resume with it.
        due = trainer.global_step - (self.recent[-1][0] if self.recent else 0) >= EVERY_STEPS
        if due and not trainer.is_last_batch and self.monitor.first_nonfinite_step is None:
            self._take(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        monitor = self.monitor
        if not looks_failed(monitor.validations, monitor.baseline, monitor.rules):
            self.suspect.unlink(missing_ok=True)
        elif not self.suspect.exists() and self.resume.exists():
            try:
                os.link(self.resume, self.suspect)  # the link survives when `resume` is replaced
            except OSError as error:
                warnings.warn(f"{self.suspect} could not be kept: {error}", stacklevel=2)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        if last or self.monitor.first_nonfinite_step is not None:
            return
        if (time.monotonic() - self._written_s) * SHARE >= self._cost_s:
            self._write(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        asked_to_end = isinstance(exception, KeyboardInterrupt | SystemExit)
        if asked_to_end and self.recent and self.monitor.first_nonfinite_step is None:
            step, state = self.recent[-1]
            if step > (self._resume_step or 0):
                self._save(step, state)

    def _take(self, trainer: Trainer) -> None:
        state = take_state(trainer)
        if self.monitor.first_nonfinite_step is None:  # the monitor has just read its last steps
            self.recent = [*self.recent, (trainer.global_step, state)][-GENERATIONS:]

    def _write(self, trainer: Trainer) -> None:
        started = time.monotonic()
        self._save(trainer.global_step, take_state(trainer))
        self._written_s = time.monotonic()
        self._cost_s = self._written_s - started

    def _save(self, step: int, state: dict[str, Any]) -> None:
        try:
            write_state(state, self.resume)
        except CheckpointError as error:  # not being able to resume is no reason to stop
            warnings.warn(f"{error}; the trial starts from the beginning if it is killed", stacklevel=2)
        else:
            self._resume_step = step


def _random_states() -> dict[str, Any]:
    states = {"torch": torch.get_rng_state(), "python": random.getstate(), "numpy": np.random.get_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_random_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
