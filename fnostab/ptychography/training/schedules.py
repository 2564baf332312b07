"""Learning-rate schedules, as factors on the base rate by optimiser step."""

import math
from collections.abc import Callable

from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.user_parts import is_own, make_own

__all__ = ["make_schedule", "rate_factor"]

Factor = Callable[[int], float]


def make_schedule(config: TrialConfig, steps: int) -> Factor:
    """The configured schedule of a training of so many steps: factors by step, 0-based.

    Raises:
        ModelError: one of your own can't be made.
    """
    training = config.training
    if is_own(training.schedule):
        return make_own("training.schedule", training.schedule, Callable, steps, config)
    warmup = training.warmup(steps // training.epochs)
    return rate_factor(warmup, steps, cosine=training.schedule.endswith("cosine"), floor=training.cosine_floor)


def rate_factor(warmup_steps: int, total_steps: int, *, cosine: bool, floor: float = 0.0) -> Factor:
    """Linear warm-up to 1 over ``warmup_steps``, then 1, or half a cosine down to ``floor`` at ``total_steps``.

    The first step is taken at ``1 / (warmup_steps + 1)``, not at 0: it would be wasted.
    (The cosine: Loshchilov and Hutter 2017, without restarts.)
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        if not cosine:
            return 1.0
        done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return factor
