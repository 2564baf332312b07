"""The black box of a trial that failed: the state from before the failing step, and what led up to it.

A folder of three files, without pickle:

    state.safetensors     weights, buffers, optimiser, schedule, random states, loops; see `state`
    history.safetensors   of the last steps: loss, norm, and the gradient and weight norm of every parameter
    black_box.json        trial, outcome, failing step, its batch, versions

`fnostab replay` goes on from there, exactly as the trial did.
"""

import json
import shutil
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from fnostab.errors import CheckpointError
from fnostab.monitor.snapshots import Snapshots
from fnostab.monitor.stability import StabilityMonitor
from fnostab.monitor.state import write_state, write_tensors
from fnostab.monitor.steps import tensor_norms, with_gradient
from fnostab.record.outcomes import FAILURES, Outcome

__all__ = ["BLACK_BOX_FILE", "HISTORY_FILE", "STATE_FILE", "BlackBox"]

BLACK_BOX_FILE, HISTORY_FILE, STATE_FILE = "black_box.json", "history.safetensors", "state.safetensors"
SCHEMA = 1
HISTORY_STEPS = 256

History = list[tuple[int, Tensor, Tensor, Tensor]]


class BlackBox(Callback):
    """Write the black box of a training as soon as its failure is known.

    Works with any module. The samples of the failing batch are recorded if the datamodule or the module has a method
    ``batch_indices(step)``; its epoch and its index are always recorded.

    For a non-finite value the state is a copy from a few steps before it. For failures that show only
    at validation it is from the end of the epoch before they began, and the history ends where they did.

    Args:
        monitor: gives the outcome and its step; it stands before this callback in the Trainer.
        snapshots: gives the state; it stands before this callback in the Trainer.
        folder: folder to write.
        about: specification and versions of the trial, JSON-ready.
        announce: called with the folder once it is written.
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
        self._parameters: dict[str, Tensor] = {}
        self._weights: Tensor | None = None  # norms before the step that is under way
        self._step = 0
        self._batches: dict[int, dict[str, int]] = {}
        self._history: deque[tuple[int, Tensor, Tensor, Tensor]] = deque(maxlen=HISTORY_STEPS)
        self._suspect_history: History = []
        self._tried = False  # once is enough, on a full disk too

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: Optimizer
    ) -> None:
        if self.folder.exists() or optimizer is not trainer.optimizers[0]:
            return
        if not self._parameters:
            names = {p: name for name, p in pl_module.named_parameters()}  # the norms are in the optimiser's order
            self._parameters = {names.get(p, ""): p for p in with_gradient(optimizer)}
        self._weights = torch.stack(list(tensor_norms([p.detach() for p in self._parameters.values()])))
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        seen, weights = self.monitor.latest, self._weights
        if seen is not None and weights is not None:
            self._weights = None
            gradients = torch.full_like(weights, torch.nan)
            if len(seen.tensor_norms) == len(weights):
                gradients = torch.stack(list(seen.tensor_norms))
            numbers = [weights.new_full((), torch.nan) if one is None else one for one in (seen.norm, seen.loss)]
            self._batches[self._step] = {"epoch": seen.epoch, "batch_index": seen.batch}
            self._batches.pop(self._step - HISTORY_STEPS, None)
            self._history.append((self._step, torch.stack([n.to(weights) for n in numbers]), gradients, weights))
        self._keep_nonfinite(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._keep_nonfinite(trainer)
        if not self.snapshots.suspect.exists():
            self._suspect_history = []
        elif not self._suspect_history:
            self._suspect_history = list(self._history)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._keep_nonfinite(trainer)
        judgement = self.monitor.judgement
        if judgement is None or judgement.outcome not in FAILURES:
            return
        history = self._suspect_history or list(self._history)
        self._keep(trainer, history, judgement.outcome, judgement.failure_step or 0)

    def _keep_nonfinite(self, trainer: lightning.Trainer) -> None:
        step = self.monitor.first_nonfinite_step
        if step is not None:
            self._keep(trainer, list(self._history), Outcome.NONFINITE, step)

    def _state(self, failure_step: int) -> Mapping[str, Any] | Path:
        suspect = self.snapshots.suspect
        at_step = self.monitor.first_nonfinite_step is not None
        return suspect if suspect.exists() and not at_step else self.snapshots.before(failure_step)[1]

    def _keep(self, trainer: lightning.Trainer, history: History, outcome: Outcome, failure_step: int) -> None:
        if self._tried or self.folder.exists():
            return
        self._tried = True
        partial = self.folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            state = self._state(failure_step)
            partial.mkdir(parents=True)
            if isinstance(state, Path):
                shutil.copyfile(state, partial / STATE_FILE)
            else:
                write_state(state, partial / STATE_FILE)
            self._write_history(partial / HISTORY_FILE, history)
            failure = {"outcome": str(outcome), "failure_step": failure_step}
            failure |= _batch(trainer, self._batches.get(failure_step), failure_step)
            about = {"schema": SCHEMA, **failure, **self.about}
            (partial / BLACK_BOX_FILE).write_text(json.dumps(about, indent=2) + "\n")
            partial.replace(self.folder)
        except (OSError, CheckpointError) as error:  # the outcome is what matters
            shutil.rmtree(partial, ignore_errors=True)
            warnings.warn(f"the black box could not be kept: {error}", stacklevel=2)
        else:
            self.announce(self.folder)

    def _write_history(self, path: Path, history: History) -> None:
        steps, numbers, gradients, weights = zip(*history, strict=True)
        seen = torch.stack(numbers).cpu()
        tensors = {
            "step": torch.tensor(steps),
            "grad_norm": seen[:, 0].contiguous(),
            "loss": seen[:, 1].contiguous(),
            "gradient_norms": torch.stack(gradients).cpu(),
            "weight_norms": torch.stack(weights).cpu(),
        }
        write_tensors(tensors, path, {"parameters": json.dumps(list(self._parameters))})


def _batch(trainer: lightning.Trainer, place: Mapping[str, int] | None, step: int) -> dict[str, Any]:
    """Batch of the failing step: its place in the epoch, and its samples where ``batch_indices`` gives them."""
    found: dict[str, Any] = dict(place or {})
    for one in (trainer.datamodule, trainer.lightning_module):
        if hasattr(one, "batch_indices"):
            indices = one.batch_indices(step)
            return found | {"batch": indices.tolist() if hasattr(indices, "tolist") else list(indices)}
    return found
