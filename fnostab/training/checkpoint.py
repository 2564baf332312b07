"""The weights of the best epoch, as safetensors: no code is run when they are loaded."""

import math
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from fnostab.callbacks.state import write_tensors
from fnostab.trial import TrialSpec

__all__ = ["BestCheckpoint"]


class BestCheckpoint(Callback):
    """Keep the generator's weights of the validation with the lowest loss.

    Args:
        path: of the file. Its metadata hold the trial's specification as JSON, and the loss.
        spec: of the trial.
    """

    def __init__(self, path: Path, spec: TrialSpec) -> None:
        self.path = path
        self.spec = spec
        self._best = math.inf

    def state_dict(self) -> dict[str, float]:
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self._best = state_dict["best"]

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        loss = float(trainer.callback_metrics[self.spec.config.training.val_loss_name])
        if loss >= self._best or not math.isfinite(loss):
            return
        self._best = loss
        weights = {  # copies, since the format refuses tensors that share memory, as tied weights do
            name: tensor.cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in pl_module.generator.state_dict().items()
        }
        write_tensors(weights, self.path, {"trial": self.spec.model_dump_json(), "val_loss": repr(loss)})
