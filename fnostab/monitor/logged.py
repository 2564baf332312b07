"""Numbers that a module logs or sends backward, as they are compared and kept."""

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor

from fnostab.monitor.optimizer_watch import loss_scaler
from fnostab.record.names import VAL_PREFIX

__all__ = ["is_finite", "logged_numbers", "one_number", "recorded_as", "spellings", "validation_numbers"]


def one_number(loss: Tensor, trainer: Trainer) -> Tensor | None:
    """A loss in float32 or more and without a scaler's factor; None if it is no single number."""
    if loss.numel() != 1:
        return None
    loss = loss.detach().reshape(())
    loss = loss.float() if loss.dtype in (torch.float16, torch.bfloat16) else loss
    scaler = loss_scaler(trainer)
    return loss if scaler is None or scaler._scale is None else loss / scaler._scale.to(loss)


def is_finite(loss: Tensor | None) -> bool:
    """Whether a loss is a number, or was not seen; waits for the device."""
    return loss is None or math.isfinite(float(loss))


def logged_numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Select the logged values that are single numbers."""
    numbers = {}
    for name, value in metrics.items():
        with suppress(TypeError, ValueError, RuntimeError):
            numbers[name] = float(value)
    return numbers


def spellings(name: str) -> tuple[str, ...]:
    """``val/loss`` and ``val_loss`` are the same."""
    for one, other in (("val/", "val_"), ("val_", "val/")):
        if name.startswith(one):
            return name, other + name.removeprefix(one)
    return (name,)


def recorded_as(name: str) -> str:
    """Name of a validation's number in a journal: it begins with ``val/``."""
    return name if name.startswith(VAL_PREFIX) else f"{VAL_PREFIX}{name}"


def validation_numbers(logged: Mapping[str, float]) -> dict[str, float]:
    """Numbers that a validation logged, as ``val/accuracy`` or ``val_accuracy``, as they are recorded."""
    return {recorded_as(name): value for name, value in logged.items() if name.startswith((VAL_PREFIX, "val_"))}
