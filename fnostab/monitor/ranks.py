"""Trainings in several processes: agree on a fact, and hand the result to the main process."""

import math
from contextlib import suppress

import lightning
import torch
from torch import Tensor, distributed

from fnostab.errors import ConfigError
from fnostab.record.outcomes import FAILURES, Judgement, Outcome

__all__ = ["SharedResult", "agreed", "anywhere", "first_decides", "refuse_sharded"]

SHARDED = ("FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy")


def refuse_sharded(trainer: lightning.Trainer) -> None:
    """Raise a `ConfigError` if each process holds only a part of a gradient, whose norm would be that of a part."""
    strategy = type(trainer.strategy).__name__
    if strategy in SHARDED:
        raise ConfigError(f"expected a strategy that keeps gradients whole, such as 'ddp', got {strategy}")


def anywhere(trainer: lightning.Trainer, holds: Tensor) -> Tensor:
    """Whether ``holds``, a 0-d boolean tensor, is true in any process; a tensor on the device, without waiting."""
    if trainer.world_size == 1 or not (distributed.is_available() and distributed.is_initialized()):
        return holds
    number = holds.to(torch.float32)
    distributed.all_reduce(number, distributed.ReduceOp.MAX)
    return number.bool()


class SharedResult:
    """Judgement of a training, in memory shared by the processes that are spawned or forked for it."""

    def __init__(self) -> None:
        self._numbers = torch.full((4 + len(FAILURES),), math.nan, dtype=torch.float64)
        with suppress(RuntimeError, OSError):  # no shared memory here: the result stays in its process
            self._numbers.share_memory_()

    def clear(self) -> None:
        """Forget the last result when a training begins."""
        self._numbers.fill_(math.nan)

    def write(self, outcome: Outcome, judgement: Judgement | None, first_nonfinite_step: int | None) -> None:
        """Write a result for the main process."""
        steps = (
            first_nonfinite_step,
            *((judgement.failure_step, judgement.known_good_step) if judgement else (None,) * 2),
        )
        held = [float(judgement is not None and rule in judgement.rules_held) for rule in FAILURES]
        numbers = [math.nan if step is None else float(step) for step in steps]
        self._numbers.copy_(torch.tensor([float(list(Outcome).index(outcome)), *numbers, *held], dtype=torch.float64))

    def read(self) -> tuple[Outcome, Judgement | None, int | None] | None:
        """Read the result of another process; None if there is none."""
        which, first, failed, good, *held = self._numbers.tolist()
        if math.isnan(which):
            return None
        outcome = list(Outcome)[int(which)]
        rules = tuple(rule for rule, holds in zip(FAILURES, held, strict=True) if holds)
        judgement = Judgement(outcome, _step(failed), _step(good), rules)
        known = outcome in FAILURES or outcome is Outcome.CONVERGED
        return outcome, judgement if known else None, _step(first)


def _step(number: float) -> int | None:
    return None if math.isnan(number) else int(number)


def agreed(trainer: lightning.Trainer, holds: bool) -> bool:
    """Whether ``holds`` is true in any process; waits for all of them."""
    return bool(trainer.strategy.reduce_boolean_decision(holds, all=False)) if trainer.world_size > 1 else holds


def first_decides(trainer: lightning.Trainer, holds: bool) -> bool:
    """Whether ``holds`` is true in the process that records; waits for it."""
    return bool(trainer.strategy.broadcast(holds)) if trainer.world_size > 1 else holds
