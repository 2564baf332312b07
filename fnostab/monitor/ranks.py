"""Communicate between the processes of a distributed training run."""

import math
from contextlib import suppress
from typing import TypeVar, cast

import torch
from lightning import Trainer
from torch import Tensor, distributed

from fnostab.errors import ConfigError
from fnostab.record.outcomes import FAILURES, Judgement, Outcome

T = TypeVar("T")
Told = tuple[Outcome, Judgement | None, int | None]
SHARDED = ("FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy")


def refuse_sharded(trainer: Trainer) -> None:
    """Raise a `ConfigError` if gradients are sharded, since each process would see only part of the norm."""
    strategy = type(trainer.strategy)
    if any(base.__name__ in SHARDED for base in strategy.__mro__):
        raise ConfigError(f"expected a strategy that keeps gradients whole, such as 'ddp', got {strategy.__name__}")


def anywhere(trainer: Trainer, holds: Tensor) -> Tensor:
    """Whether ``holds``, a 0-d boolean tensor, is true in any process, as a tensor, without waiting for the device."""
    if trainer.world_size == 1 or not (distributed.is_available() and distributed.is_initialized()):
        return holds
    number = holds.to(torch.float32)
    distributed.all_reduce(number, distributed.ReduceOp.MAX)
    return number.bool()


class FitResult:
    """Result of a fit, in memory that its spawned or forked processes share with the main one.

    All of a judgement is shared except ``not_judged``, which is text.
    """

    def __init__(self) -> None:
        self._numbers = torch.full((4 + len(FAILURES),), math.nan, dtype=torch.float64)
        with suppress(RuntimeError, OSError):  # no shared memory: the result stays in its process
            self._numbers.share_memory_()
        self._own: Told | None = None

    def begin(self) -> None:
        """Reset the result at the start of a training run."""
        self._own = None
        self._numbers.fill_(math.nan)

    def announce(self, first_nonfinite_step: int) -> None:
        """Report a non-finite step to the main process at once, as this process may be terminated with another."""
        self._write(Outcome.RUNNING, None, first_nonfinite_step)

    def end(
        self, outcome: Outcome, judgement: Judgement | None, first_nonfinite_step: int | None, *, shares: bool
    ) -> None:
        """Store the result of this process; with ``shares``, also for the main process."""
        self._own = outcome, judgement, first_nonfinite_step
        if shares:
            self._write(outcome, judgement, first_nonfinite_step)

    @property
    def ended(self) -> bool:
        """Whether this process has a result."""
        return self._own is not None

    def told(self) -> Told:
        """Outcome, judgement and first non-finite step of this process, else of another, else ``running``."""
        return self._own or self._read() or (Outcome.RUNNING, None, None)

    def _write(self, outcome: Outcome, judgement: Judgement | None, first_nonfinite_step: int | None) -> None:
        of_failure = (None, None) if judgement is None else (judgement.failure_step, judgement.known_good_step)
        held = [float(judgement is not None and rule in judgement.rules_held) for rule in FAILURES]
        numbers = [math.nan if step is None else float(step) for step in (first_nonfinite_step, *of_failure)]
        self._numbers.copy_(torch.tensor([float(list(Outcome).index(outcome)), *numbers, *held], dtype=torch.float64))

    def _read(self) -> Told | None:
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


def agreed(trainer: Trainer, holds: bool) -> bool:
    """Whether ``holds`` is true in any process; waits for all of them."""
    return bool(trainer.strategy.reduce_boolean_decision(holds, all=False)) if trainer.world_size > 1 else holds


def of_first(trainer: Trainer, value: T) -> T:
    """Broadcast the value of the recording process; waits for it."""
    return cast(T, trainer.strategy.broadcast(value)) if trainer.world_size > 1 else value
