"""Watch all optimisers of a fit: assign backward passes to them and order their steps."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Self

from lightning import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from fnostab.errors import one_line
from fnostab.monitor.logged import is_finite, one_number
from fnostab.monitor.nonfinite_guard import RunningStatistics, describe_guard
from fnostab.monitor.observed import Observed
from fnostab.monitor.optimizer_curve import Curve
from fnostab.monitor.optimizer_watch import OptimizerWatch
from fnostab.monitor.steps import Step, read_steps


class Watches:
    """Watches of all optimisers of a fit.

    Args:
        watches: one per optimiser; empty before training.
        statistics: running statistics of the module; None without a module.
        places: numbers of the steps of all optimisers, in order.
    """

    def __init__(
        self,
        watches: Sequence[OptimizerWatch] = (),
        statistics: RunningStatistics | None = None,
        places: Iterator[int] | None = None,
    ) -> None:
        self._watches = watches
        self._statistics = statistics
        self._places = places or itertools.count()
        self._going_backward: Tensor | None = None
        self._fingerprints: list[list[tuple[int, int]]] = []

    def renewed(self, trainer: Trainer, module: LightningModule, *, weight_norms: bool) -> Self:
        """Return watches of every optimiser of a Trainer; their steps follow those of the present ones."""
        optimizers = _optimizers(trainer)
        statistics = RunningStatistics(module, several=len(optimizers) > 1)
        watches = [
            OptimizerWatch(trainer, module, each, i, statistics, self._places, weight_norms=weight_norms)
            for i, each in enumerate(optimizers)
        ]
        return type(self)(watches, statistics, self._places)

    def are_of(self, trainer: Trainer) -> bool:
        """Whether these watch the Trainer's optimisers, which a module or callback may replace."""
        return [watch.optimizer for watch in self._watches] == _optimizers(trainer)

    def __len__(self) -> int:
        return len(self._watches)

    @property
    def guard(self) -> str:
        """Description of how the weights are guarded against a non-finite gradient."""
        return " ".join(sorted({describe_guard(watch.optimizer) for watch in self._watches}))

    @property
    def made(self) -> list[Step]:
        """Steps of the current batch, in order."""
        return sorted((step for watch in self._watches for step in watch.made), key=lambda step: step.place)

    @property
    def steps(self) -> int:
        """Largest number of steps made by any optimiser."""
        return max((watch.steps for watch in self._watches), default=0)

    def attach(self, curves: Sequence[Curve]) -> None:
        """Start watching each optimiser at its curve's next step."""
        for watch, curve in zip(self._watches, curves, strict=False):  # more curves if there were more optimisers
            watch.attach(curve.steps)

    def detach(self) -> None:
        """Remove all hooks from the optimisers."""
        for watch in self._watches:
            watch.detach()

    def start_batch(self, batch: int, epoch: int) -> None:
        """Note that a batch begins."""
        if self._statistics is not None:
            self._statistics.keep()
        for watch in self._watches:
            watch.start_batch(batch, epoch)

    def start_backward(self, trainer: Trainer, loss: Tensor) -> None:
        """Note that the backward pass of ``loss`` begins; only a scalar loss is recorded."""
        self._going_backward = one_number(loss, trainer)
        for watch in self._watches:
            watch.start_backward()
        if len(self._watches) > 1:
            self._fingerprints = [watch.fingerprint() for watch in self._watches]

    def end_backward(self) -> None:
        """Assign the finished backward pass to the optimisers whose gradients changed."""
        loss, self._going_backward = self._going_backward, None
        for i, watch in enumerate(self._watches):
            if len(self._watches) == 1 or watch.fingerprint() != self._fingerprints[i]:
                watch.end_backward(loss)

    def announce(self, optimizer: Optimizer) -> None:
        """Note that Lightning is about to make a step of ``optimizer``."""
        for watch in self._watches:
            if watch.optimizer is optimizer:
                watch.announce()

    def end_batch(self) -> None:
        """Note that a batch has ended."""
        for watch in self._watches:
            watch.end_batch()

    def read(self, curves: Sequence[Curve]) -> None:
        """Copy unread steps to their curves on the host; the only place that waits for the device."""
        pending = sorted((step for watch in self._watches for step in watch.block), key=lambda step: step.place)
        for watch in self._watches:
            watch.block = []
        for step, numbers in zip(pending, read_steps(pending), strict=True):
            curves[step.optimizer].take(step, numbers)

    def take_step_under_way(self, seen: Observed, exception: BaseException) -> None:
        """Record the loss of the step under way when ``exception`` ended the training."""
        if not self._watches:
            return
        about = {"epoch": self._watches[0].epoch, "batch": self._watches[0].batch}
        under_way = [(i, watch.loss_under_way()) for i, watch in enumerate(self._watches)]
        for i, loss in (*under_way, (0, self._going_backward)):
            if seen.first_failed is None and not is_finite(loss):
                seen.curves[i].take_failure("loss", about)
        if seen.first_failed is None and _is_anomaly(exception):
            seen.curves[0].take_failure("gradient", about | {"anomaly": one_line(exception)})


def _optimizers(trainer: Trainer) -> list[Optimizer]:
    """Optimisers that have parameters; Lightning's placeholder has none."""
    return [each for each in trainer.optimizers if each.param_groups]


def _is_anomaly(exception: BaseException) -> bool:
    """Whether torch's `detect_anomaly` raised the exception for a NaN in the backward pass."""
    return isinstance(exception, RuntimeError) and "returned nan values" in str(exception)
