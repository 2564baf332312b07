"""Convert logged values and losses to the numbers that are compared and recorded."""

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor

from fnostab.monitor.optimizer_watch import loss_scaler
from fnostab.record.names import VAL_PREFIX


def one_number(loss: Tensor, trainer: Trainer) -> Tensor | None:
    """Convert a loss to at least float32 and unscale it; None if it is not a scalar."""
    if loss.numel() != 1:
        return None
    loss = loss.detach().reshape(())
    loss = loss.float() if loss.dtype in (torch.float16, torch.bfloat16) else loss
    scaler = loss_scaler(trainer)
    return loss if scaler is None or scaler._scale is None else loss / scaler._scale.to(loss)


def is_finite(loss: Tensor | None) -> bool:
    """Whether a loss is finite or None; waits for the device."""
    return loss is None or math.isfinite(float(loss))


def newly_logged(trainer: Trainer, before: Mapping[str, Any]) -> dict[str, float]:
    """Scalars that were logged since the Trainer's metrics were those of ``before``."""
    numbers = {}
    for name, value in trainer.callback_metrics.items():
        with suppress(TypeError, ValueError, RuntimeError):
            if value is not before.get(name):
                numbers[name] = float(value)
    return numbers


def spellings(name: str) -> tuple[str, ...]:
    """Equivalent spellings of a metric name, such as ``val/loss`` and ``val_loss``."""
    for one, other in (("val/", "val_"), ("val_", "val/")):
        if name.startswith(one):
            return name, other + name.removeprefix(one)
    return (name,)


def recorded_as(name: str) -> str:
    """Name of a validation metric in a journal, with the prefix ``val/``."""
    return name if name.startswith(VAL_PREFIX) else f"{VAL_PREFIX}{name}"


def validation_numbers(logged: Mapping[str, float]) -> dict[str, float]:
    """Logged validation metrics (``val/accuracy`` or ``val_accuracy``) under their recorded names."""
    return {recorded_as(name): value for name, value in logged.items() if name.startswith((VAL_PREFIX, "val_"))}
