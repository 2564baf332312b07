"""Learning-rate schedules: functions from the optimiser step to a factor of the base rate."""

import math
from collections.abc import Callable

from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.user_parts import is_own, make_own

Factor = Callable[[int], float]


def make_schedule(config: TrialConfig, steps: int) -> Factor:
    """Build the configured schedule, a function from the 0-based step to a factor.

    Args:
        config: configuration of the trial.
        steps: total number of optimiser steps.

    Raises:
        ModelError: a custom schedule can't be built.
    """
    training = config.training
    if is_own(training.schedule):
        return make_own("training.schedule", training.schedule, Callable, steps, config)
    warmup = training.warmup(steps // training.epochs)
    return rate_factor(warmup, steps, cosine=training.schedule.endswith("cosine"), floor=training.cosine_floor)


def rate_factor(warmup_steps: int, total_steps: int, *, cosine: bool, floor: float = 0.0) -> Factor:
    """Linear warm-up to 1 over ``warmup_steps``, then constant, or half a cosine down to ``floor`` at ``total_steps``.

    The first factor is ``1 / (warmup_steps + 1)``, since a step with factor 0 would be wasted. The cosine is that of
    Loshchilov and Hutter 2017, "SGDR", without restarts.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        if not cosine:
            return 1.0
        done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return factor
