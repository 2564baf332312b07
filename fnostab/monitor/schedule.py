"""Scheduled number of optimiser steps, computed without side effects."""

import math

from lightning import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler, StochasticWeightAveraging


def scheduled_steps(trainer: Trainer) -> float:
    """Number of steps of each optimiser, assuming one per batch (or accumulated batches); inf if unknown.

    Call it only after the loaders exist. `Trainer.estimated_stepping_batches` would create them, and so draw random
    numbers or use a loader whose state is not yet restored.
    """
    by_steps = math.inf if trainer.max_steps == -1 else trainer.max_steps
    if any(isinstance(c, GradientAccumulationScheduler) for c in trainer.callbacks):
        return by_steps
    if trainer.max_epochs in (None, -1) or not math.isfinite(trainer.num_training_batches):
        return by_steps
    an_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    epochs = trainer.max_epochs
    for callback in trainer.callbacks:
        if isinstance(callback, StochasticWeightAveraging) and callback._model_contains_batch_norm:
            epochs -= 1  # it adds one, in which it renews the running statistics and trains no weights
    return min(by_steps, an_epoch * epochs)
