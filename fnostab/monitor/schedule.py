"""How many optimiser steps a training will make, asked without setting anything up."""

import math

import lightning
from lightning.pytorch.callbacks import GradientAccumulationScheduler

__all__ = ["scheduled_steps"]


def scheduled_steps(trainer: lightning.Trainer) -> float:
    """Steps of each optimiser, if it makes one a batch or accumulation; inf if unknown.

    Only where the loaders are there already: `Trainer.estimated_stepping_batches` makes them, and would draw random
    numbers or ask a loader that has not got its state back yet.
    """
    by_steps = math.inf if trainer.max_steps == -1 else trainer.max_steps
    if any(isinstance(c, GradientAccumulationScheduler) for c in trainer.callbacks):
        return by_steps
    if trainer.max_epochs in (None, -1) or not math.isfinite(trainer.num_training_batches):
        return by_steps
    an_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    return min(by_steps, an_epoch * trainer.max_epochs)
