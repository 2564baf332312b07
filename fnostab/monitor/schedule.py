"""Number of optimiser steps of a training, found without setting anything up."""

import math

from lightning import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler

__all__ = ["scheduled_steps"]


def scheduled_steps(trainer: Trainer) -> float:
    """Number of steps of each optimiser, if it makes one a batch (or accumulation of batches); inf if unknown.

    It is known only once the loaders exist: `Trainer.estimated_stepping_batches` would make them, and so draw random
    numbers, or use a loader whose state is not restored yet.
    """
    by_steps = math.inf if trainer.max_steps == -1 else trainer.max_steps
    if any(isinstance(c, GradientAccumulationScheduler) for c in trainer.callbacks):
        return by_steps
    if trainer.max_epochs in (None, -1) or not math.isfinite(trainer.num_training_batches):
        return by_steps
    an_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    return min(by_steps, an_epoch * trainer.max_epochs)
