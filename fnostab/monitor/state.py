"""Save the complete state of a training run in one file, as safetensors with JSON; no pickle.

A Lightning checkpoint (weights, optimiser, schedule, loops, callbacks) is a tree of
dicts, lists, tuples, numbers and tensors. The tensors are stored as safetensors and the tree as JSON
in the same file's metadata: a file is either complete or absent, and reading it runs no code.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Trainer
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fnostab.errors import CheckpointError
from fnostab.record.safe_files import replaced

TREE = "tree"


class StateFiles(CheckpointIO):
    """Lightning plugin: `take_state` saves checkpoints in memory; training resumes from files of `write_state`."""

    taken: dict[str, Any] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self.taken = _copied(checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_state(path)

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def take_state(trainer: Trainer) -> dict[str, Any]:
    """Copy the training state in memory, on its device, without waiting for the device."""
    files = trainer.strategy.checkpoint_io
    trainer.save_checkpoint("memory")
    state, files.taken = files.taken, None
    return state


def write_state(state: Mapping[str, Any], path: Path) -> None:
    """Write a state to ``path``, atomically.

    Raises:
        CheckpointError: the state holds something other than tensors and plain data, or can't be written.
    """
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_pack(state, tensors))
    write_tensors({name: t.cpu().contiguous() for name, t in tensors.items()}, path, {TREE: tree})


def write_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file atomically, with the umask's permissions (safetensors would make it private).

    Raises:
        CheckpointError: the file can't be written.
    """
    try:
        with replaced(path) as partial:
            partial.touch()
            mode = partial.stat().st_mode
            save_file(tensors, partial, metadata=metadata)
            partial.chmod(mode)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"can't write {path}: {error}; free some space") from error


def read_state(path: str | Path) -> dict[str, Any]:
    """Read a file written by `write_state`; tensors are on the CPU.

    Raises:
        CheckpointError: the file is missing, damaged or not of this format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tree = json.loads(file.metadata()[TREE])
            return _unpack(tree, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - no dict
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is not the state of a training: {error}") from error


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Convert ``value`` to JSON-ready data, moving its tensors into ``tensors``."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor | np.ndarray):
        name = str(len(tensors))
        tensors[name] = torch.as_tensor(value)
        return {"tensor" if isinstance(value, Tensor) else "array": name}
    if isinstance(value, Mapping):  # pairs, since keys may be integers
        return {"dict": [[key, _pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_pack(item, tensors) for item in value]}
    if isinstance(value, list):
        return [_pack(item, tensors) for item in value]
    raise CheckpointError(f"a training's state holds a {type(value).__name__}, which can't be kept: use plain data")


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "array":
        return tensors[content].numpy()
    if kind == "tuple":
        return tuple(_unpack(item, tensors) for item in content)
    return {key: _unpack(item, tensors) for key, item in content}
