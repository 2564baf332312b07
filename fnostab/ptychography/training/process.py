"""Trials of one process: one, or several of one arm in lockstep."""

import logging
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from fnostab.errors import FnostabError
from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.training.lockstep import Lockstep, Seat, insist_on_lockstep
from fnostab.ptychography.training.precision import tf32_only_if
from fnostab.ptychography.training.setup import choose_device
from fnostab.ptychography.training.trial import run_trial
from fnostab.record.outcomes import Outcome
from fnostab.record.trial import TrialSpec

__all__ = ["train"]


def train(specs: Sequence[TrialSpec], directories: Sequence[Path]) -> list[Outcome | None]:
    """Outcomes of trials, which are trained side by side if they are several; None of one that broke off.

    Raises:
        FnostabError: a single one could not be started.
        LaunchError: they can't be trained in lockstep.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # Lightning sets it when it is imported
    if len(specs) == 1:
        return [run_trial(specs[0], directories[0])]
    insist_on_lockstep(specs)
    return _in_lockstep(specs, directories)


def _in_lockstep(specs: Sequence[TrialSpec], directories: Sequence[Path]) -> list[Outcome | None]:
    """Outcomes of trials that are trained side by side; None of one that could not be carried out."""
    execution = TrialConfig.from_dotted(specs[0].settings).execution
    with tf32_only_if(execution.convolution_precision, choose_device(execution.device)):
        return _in_threads(specs, directories)  # each sets that too, and takes it back when it ends: to the same


def _in_threads(specs: Sequence[TrialSpec], directories: Sequence[Path]) -> list[Outcome | None]:
    lockstep = Lockstep(len(specs))

    def train(spec: TrialSpec, directory: Path, seat: Seat) -> Outcome | None:
        try:
            with lockstep.turn:
                return run_trial(spec, directory, seat)
        except FnostabError as error:
            print(f"error: {spec.arm}-{spec.seed}: {error}", file=sys.stderr)
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
