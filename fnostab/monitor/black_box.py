"""Black box of a failed trial: the state from before the failing step, and the steps that led up to it.

A folder of three files, without pickle:

    state.safetensors     weights, buffers, optimiser, schedule, random states, loops; see `state`
    history.safetensors   last steps of the optimiser that failed: loss, gradient norm, and the gradient and weight
                          norms of every parameter
    black_box.json        trial, outcome, failing step, its batch, versions

`fnostab replay` continues from there, exactly as the trial did.
"""

import json
import shutil
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from fnostab.errors import CheckpointError
from fnostab.monitor.snapshots import Snapshots
from fnostab.monitor.stability import StabilityMonitor
from fnostab.monitor.state import write_state, write_tensors
from fnostab.monitor.steps import Step
from fnostab.record.names import BLACK_BOX_FILE
from fnostab.record.outcomes import FAILURES, Outcome

HISTORY_FILE, STATE_FILE = "history.safetensors", "state.safetensors"
SCHEMA = 1
HISTORY_STEPS = 256


@dataclass(frozen=True)
class _Made:
    """One optimiser step, with tensors on their device; None if not measured."""

    number: int
    epoch: int
    batch: int
    global_step: int  # the Trainer's count at the start of the batch, over all optimisers
    norm: Tensor | None
    loss: Tensor | None
    gradients: Tensor | None  # norms, (parameters,)
    weights: Tensor | None  # norms before the step, (parameters,)


class BlackBox(Callback):
    """Write the black box of a training run as soon as its failure is known.

    Works with any module. The samples of the failing batch are recorded if the datamodule or the module has a method
    ``batch_indices(step)``; its epoch and index are always recorded. With several optimisers, the box covers the one
    that failed.

    For a non-finite value, the state is a copy from a few steps before it. For a failure that shows only
    at validation, it is from the end of the epoch before the failure began, and the history ends there too.

    Args:
        monitor: provides the outcome and its step; must come before this callback in the Trainer.
        snapshots: provides the state; must come before this callback in the Trainer.
        folder: folder to write.
        about: specification and versions of the trial, JSON-ready.
        announce: called with the folder after it is written.
    """

    def __init__(
        self,
        monitor: StabilityMonitor,
        snapshots: Snapshots,
        folder: Path,
        *,
        about: Mapping[str, Any],
        announce: Callable[[Path], None] = lambda folder: None,
    ) -> None:
        self.monitor = monitor
        self.snapshots = snapshots
        self.folder = folder
        self.about = about
        self.announce = announce
        monitor.weight_norms = True
        self._global_step = 0
        self._parameters: dict[int, list[int]] = {}  # per optimiser, by ``id``
        self._histories: dict[int, deque[_Made]] = {}
        self._suspect_history: list[_Made] = []
        self._tried = False  # try only once, even on a full disk

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._global_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self._tried:
            for step in self.monitor.made:
                self._take(step)
            self._keep_nonfinite(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._keep_nonfinite(trainer)
        if not self.snapshots.suspect.exists():
            self._suspect_history = []
        elif not self._suspect_history:
            self._suspect_history = self._history

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep_nonfinite(trainer)
        judgement = self.monitor.judgement
        if judgement is None or judgement.outcome not in FAILURES:
            return
        history = self._suspect_history or self._history
        self._keep(trainer, history, judgement.outcome, judgement.failure_step or 0)

    @property
    def _history(self) -> list[_Made]:
        """Last steps of the optimiser that failed."""
        return list(self._histories.get(self.monitor.failed_optimizer, ()))

    def _take(self, step: Step) -> None:
        history = self._histories.setdefault(step.optimizer, deque(maxlen=HISTORY_STEPS))
        gradients = weights = None
        if step.weight_norms:
            own = [id(p) for p in step.parameters]
            if own == self._parameters.setdefault(step.optimizer, own):  # differs if part was frozen, say
                gradients, weights = torch.stack(list(step.tensor_norms)), torch.stack(list(step.weight_norms))
        place = (step.number, step.epoch, step.batch, self._global_step)
        history.append(_Made(*place, step.norm, step.loss, gradients, weights))

    def _keep_nonfinite(self, trainer: Trainer) -> None:
        failed = self.monitor.first_failed
        if failed is not None and failed.first_nonfinite_step is not None:
            self._keep(trainer, self._history, Outcome.NONFINITE, failed.first_nonfinite_step)

    def _state(self, global_step: int) -> Mapping[str, Any] | Path:
        suspect = self.snapshots.suspect
        at_step = self.monitor.first_failed is not None
        return suspect if suspect.exists() and not at_step else self.snapshots.before(global_step)[1]

    def _keep(self, trainer: Trainer, history: Sequence[_Made], outcome: Outcome, failure_step: int) -> None:
        if self._tried or self.folder.exists():
            return
        self._tried = True
        partial = self.folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        failed = next((made for made in history if made.number == failure_step), None)
        try:
            state = self._state(failure_step if failed is None else failed.global_step)
            partial.mkdir(parents=True)
            if isinstance(state, Path):
                shutil.copyfile(state, partial / STATE_FILE)
            else:
                write_state(state, partial / STATE_FILE)
            self._write_history(partial / HISTORY_FILE, history, trainer.lightning_module)
            failure: dict[str, Any] = {"outcome": str(outcome), "failure_step": failure_step}
            failure |= {} if failed is None else {"epoch": failed.epoch, "batch_index": failed.batch}
            failure |= _samples(trainer, failure_step)
            about = {"schema": SCHEMA, **failure, **self.about}
            (partial / BLACK_BOX_FILE).write_text(json.dumps(about, indent=2) + "\n")
            partial.replace(self.folder)
        except (OSError, CheckpointError) as error:  # must not hide the outcome
            shutil.rmtree(partial, ignore_errors=True)
            warnings.warn(f"the black box could not be kept: {error}", stacklevel=2)
        else:
            self.announce(self.folder)

    def _write_history(self, path: Path, history: Sequence[_Made], module: nn.Module) -> None:
        parameters = self._parameters.get(self.monitor.failed_optimizer, [])
        names = {id(p): name for name, p in module.named_parameters()}
        tensors = {
            "step": torch.tensor([made.number for made in history]),
            "grad_norm": _stacked([made.norm for made in history]),
            "loss": _stacked([made.loss for made in history]),
            "gradient_norms": _stacked([made.gradients for made in history], len(parameters)),
            "weight_norms": _stacked([made.weights for made in history], len(parameters)),
        }
        write_tensors(tensors, path, {"parameters": json.dumps([names.get(p, "") for p in parameters])})


def _stacked(tensors: Sequence[Tensor | None], *shape: int) -> Tensor:
    """Stack tensors on the CPU, (tensors, *shape); NaN for missing ones."""
    missing = torch.full(shape, torch.nan)
    return torch.stack([missing, *(missing if t is None else t.float().cpu() for t in tensors)])[1:].contiguous()


def _samples(trainer: Trainer, step: int) -> dict[str, Any]:
    """Samples in a step's batch, if the datamodule or the module has ``batch_indices``."""
    for one in (trainer.datamodule, trainer.lightning_module):
        if hasattr(one, "batch_indices"):
            indices = one.batch_indices(step)
            return {"batch": indices.tolist() if hasattr(indices, "tolist") else list(indices)}
    return {}
