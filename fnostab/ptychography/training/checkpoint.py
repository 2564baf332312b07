"""Checkpoint of the best epoch in safetensors format, which executes no code when loaded."""

import math
from pathlib import Path

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import nn

from fnostab.errors import CheckpointError
from fnostab.monitor.state import write_tensors
from fnostab.ptychography.models import build_generator
from fnostab.ptychography.settings import TrialConfig
from fnostab.record.trial import TrialSpec


class BestCheckpoint(Callback):
    """Save the generator's weights at the validation with the lowest loss.

    The file's metadata contain the trial's specification as JSON, and the loss.

    Args:
        path: checkpoint file, overwritten at each improvement.
        spec: specification of the trial.
    """

    def __init__(self, path: Path, spec: TrialSpec) -> None:
        self.path = path
        self.spec = spec
        self._best = math.inf

    def state_dict(self) -> dict[str, float]:
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self._best = state_dict["best"]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        loss = float(trainer.callback_metrics[TrialConfig.from_dotted(self.spec.settings).training.val_loss_name])
        if loss >= self._best or not math.isfinite(loss):
            return
        self._best = loss
        weights = {  # copies, since the format does not allow shared memory, as of tied weights
            name: tensor.cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in pl_module.generator.state_dict().items()
        }
        write_tensors(weights, self.path, {"trial": self.spec.model_dump_json(), "val_loss": repr(loss)})


def load_checkpoint(path: Path) -> tuple[nn.Module, TrialSpec]:
    """Build the network of a checkpoint written by `BestCheckpoint`, and load its weights.

    Returns:
        The network and the specification of its trial.

    Raises:
        CheckpointError: the file can't be read, is not a checkpoint, or its weights do not fit its network.
        ModelError: the network can't be built.
    """
    try:
        with safe_open(path, framework="pt") as file:
            spec = TrialSpec.model_validate_json((file.metadata() or {})["trial"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        generator = build_generator(TrialConfig.from_dotted(spec.settings).model)
        generator.load_state_dict(weights)
    except OSError as error:
        raise CheckpointError(f"can't read the checkpoint {path}: {error.strerror or error}") from error
    except (SafetensorError, KeyError, ValidationError, RuntimeError) as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise CheckpointError(f"{path} is not a checkpoint that this version can load: {what}") from error
    return generator, spec
