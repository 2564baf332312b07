"""Trials of one arm as threads of one process, each with a seat at the meeting point of their passes."""

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
from fnostab.ptychography.training.precision import convolutions_in, tf32_only_if
from fnostab.ptychography.training.setup import Training, choose_device, set_up
from fnostab.ptychography.training.trial import run_trial
from fnostab.record import names
from fnostab.record.outcomes import Outcome
from fnostab.record.trial import TrialSpec

__all__ = ["insist_on_lockstep", "train_in_lockstep"]


class SeatedModule(PtychoModule):
    """A module whose network's passes are made together with those of other trainings, while it has a seat."""

    seat: Seat | None = None

    def forward(self, amplitudes: Tensor) -> Tensor:
        """Complex object patches (B, 1, N, N) of measured amplitudes (B, 1, N, N)."""
        if self.seat is None:
            return super().forward(amplitudes)
        with convolutions_in(self.config.execution.convolution_precision, amplitudes.device):
            return self.seat.forward(amplitudes)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Go back to the patches, and together with the others to the weights."""
        super().backward(loss, *args, **kwargs)
        if self.seat is not None:
            self.seat.backward()


@dataclass(frozen=True)
class SeatedTraining(Training):
    """A training beside others."""

    module: SeatedModule
    seat: Seat

    def fit(self, *args: Any, **kwargs: Any) -> None:
        """Train as alone, with the passes of the network made together."""
        self.module.seat = self.seat
        with self.seat.taken(self.module.generator):
            super().fit(*args, **kwargs)
        self.module.seat = None


def insist_on_lockstep(specs: Sequence[TrialSpec]) -> None:
    """Raise LaunchError if trials can't be trained in lockstep."""
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
    """Outcomes of trials that are trained side by side; None of one that could not be carried out.

    Raises:
        LaunchError: they can't be trained so.
    """
    insist_on_lockstep(specs)
    execution = TrialConfig.from_dotted(specs[0].settings).execution
    with tf32_only_if(execution.convolution_precision, choose_device(execution.device)):
        return _in_threads(specs, directories)  # each sets that too, and takes it back when it ends: to the same


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
            wait(trainings)  # not Thread.join: before Python 3.13 one that is interrupted takes the thread for ended
        except (KeyboardInterrupt, SystemExit) as end:  # it comes to the main thread alone
            lockstep.end(str(end) or type(end).__name__)
        return [training.result() for training in trainings]


def _set_up(seat: Seat, spec: TrialSpec) -> SeatedTraining:
    return SeatedTraining(**vars(set_up(spec, SeatedModule)), seat=seat)
