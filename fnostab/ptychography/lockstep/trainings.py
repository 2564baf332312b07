"""Run trials of one arm in lockstep, as threads of one process."""

import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from fnostab.errors import FnostabError, LaunchError
from fnostab.ptychography.lockstep.passes import Lockstep, Seat
from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.training.module import PtychoModule
from fnostab.ptychography.training.precision import arithmetic, convolutions_in
from fnostab.ptychography.training.setup import Training, choose_device, set_up
from fnostab.ptychography.training.trial import run_trial
from fnostab.record import names
from fnostab.record.outcomes import Outcome
from fnostab.record.trial import TrialSpec


class SeatedModule(PtychoModule):
    """Module whose network passes are batched with those of other trainings while it has a seat."""

    seat: Seat | None = None

    def forward(self, amplitudes: Tensor) -> Tensor:
        """Predict complex object patches (B, 1, N, N) from measured amplitudes (B, 1, N, N)."""
        if self.seat is None:
            return super().forward(amplitudes)
        with convolutions_in(self.config.execution.convolution_precision, amplitudes.device):
            return self.seat.forward(amplitudes)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Backpropagate to the patches, then together with the other trainings to the weights."""
        super().backward(loss, *args, **kwargs)
        if self.seat is not None:
            self.seat.backward()


@dataclass(frozen=True)
class SeatedTraining(Training):
    """Training that runs in lockstep with others."""

    module: SeatedModule
    seat: Seat

    def fit(self, *args: Any, **kwargs: Any) -> None:
        """Train as `Training.fit`, with batched network passes."""
        self.module.seat = self.seat
        with self.seat.taken(self.module.generator):
            super().fit(*args, **kwargs)
        self.module.seat = None


def insist_on_lockstep(specs: Sequence[TrialSpec]) -> None:
    """Check that trials can be trained in lockstep.

    Raises:
        LaunchError: the trials have different settings, a custom network, or checkpointed blocks.
    """
    first = specs[0]
    for spec in specs:
        if spec.settings != first.settings:
            raise LaunchError(
                f"{spec.name} and {first.name} have different settings: "
                "only seeds of one arm can be trained in lockstep"
            )
    model = TrialConfig.from_dotted(first.settings).model
    if model.own:
        raise LaunchError(
            f"{', '.join(model.own.values())} can't be trained in lockstep, only built-in networks: train its seeds "
            "alone"
        )
    if model.checkpoint_blocks:
        raise LaunchError("model.checkpoint_blocks=true can't be trained in lockstep: leave one of them out")


def train_in_lockstep(specs: Sequence[TrialSpec], directories: Sequence[Path]) -> list[Outcome | None]:
    """Train trials in lockstep.

    Returns:
        The outcome of each trial; None for one that could not be carried out.

    Raises:
        LaunchError: the trials can't be trained in lockstep.
    """
    insist_on_lockstep(specs)
    execution = TrialConfig.from_dotted(specs[0].settings).execution
    with arithmetic(execution.convolution_precision, choose_device(execution.device)):
        return _in_threads(specs, directories)  # each thread sets and restores the same value


def _in_threads(specs: Sequence[TrialSpec], directories: Sequence[Path]) -> list[Outcome | None]:
    lockstep = Lockstep(len(specs))
    tags = {names.LOCKSTEP: str(lockstep.size)}

    def train(spec: TrialSpec, directory: Path, seat: Seat) -> Outcome | None:
        try:
            with lockstep.turn:
                return run_trial(spec, directory, partial(_set_up, seat), tags)
        except FnostabError as error:
            print(f"error: {spec.name}: {error}", file=sys.stderr)
        except Exception:
            traceback.print_exc()
        finally:
            lockstep.leave(seat)
        return None

    with ThreadPoolExecutor(len(specs)) as pool:
        trainings = [pool.submit(train, *each) for each in zip(specs, directories, lockstep.seats, strict=True)]
        try:
            wait(trainings)  # not Thread.join, which before Python 3.13 marks a thread as ended if interrupted
        except (KeyboardInterrupt, SystemExit) as end:  # only raised in the main thread
            lockstep.end(str(end) or type(end).__name__)
        return [training.result() for training in trainings]


def _set_up(seat: Seat, spec: TrialSpec) -> SeatedTraining:
    return SeatedTraining(**vars(set_up(spec, SeatedModule)), seat=seat)
