"""Learning-rate schedules, as factors on the base rate by optimiser step."""

import math
from collections.abc import Callable

__all__ = ["rate_factor"]


def rate_factor(warmup_steps: int, total_steps: int, *, cosine: bool, floor: float = 0.0) -> Callable[[int], float]:
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
