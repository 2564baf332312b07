"""What a process that trains does around it: one trial, or several of one arm in lockstep."""

import ctypes
import logging
import signal
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from fnostab.errors import FnostabError
from fnostab.ptychography.training.lockstep import Lockstep, Seat, insist_on_lockstep
from fnostab.ptychography.training.precision import tf32_only_if
from fnostab.ptychography.training.setup import choose_device
from fnostab.ptychography.training.trial import run_trial
from fnostab.record.outcomes import TRAINING_OUTCOMES, Outcome
from fnostab.record.trial import TrialSpec

__all__ = ["train_files"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST_THRESHOLD = 2**31 - 1  # bytes


def train_files(paths: Sequence[Path]) -> int:
    """Train what each trial.json describes, with journal and artifacts beside it; several in lockstep.

    From here on SIGTERM ends trials properly: as ``killed``, with a state to go on from.

    Args:
        paths: files of trials; of several, the arm and all settings are the same.

    Returns:
        Exit status: 0 if all came to a training outcome, else 1.

    Raises:
        FnostabError: a single one could not be started.
        LaunchError: they can't be trained in lockstep.
    """
    specs = [TrialSpec.read(path) for path in paths]
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # Lightning sets it when it is imported
    keep_freed_memory()
    signal.signal(signal.SIGTERM, _terminate)  # from here on there is a journal to write the end into
    if len(specs) == 1:
        outcomes: list[Outcome | None] = [run_trial(specs[0], paths[0].parent)]
    else:
        insist_on_lockstep(specs)
        outcomes = _in_lockstep(specs, [path.parent for path in paths])
    for spec, outcome in zip(specs, outcomes, strict=True):
        print(f"{spec.arm}-{spec.seed}: {outcome or Outcome.INFRA_ERROR}")
    return 0 if all(outcome in TRAINING_OUTCOMES for outcome in outcomes) else 1


def keep_freed_memory() -> None:
    """Let glibc keep what is freed instead of giving it back to the system at once.

    Each step of a training takes and frees the same blocks of many megabytes. To fetch them anew is a page
    fault for every 4 KiB, which took 8 to 20 % of a step's CPU time. Elsewhere than on glibc nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
    mallopt(M_TRIM_THRESHOLD, LARGEST_THRESHOLD)


def _in_lockstep(specs: Sequence[TrialSpec], directories: Sequence[Path]) -> list[Outcome | None]:
    """Outcomes of trials that are trained side by side; None of one that could not be carried out."""
    with tf32_only_if(specs[0].config.execution.convolution_precision, choose_device(specs[0].config.execution.device)):
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


def _terminate(signum: int, frame: object) -> None:
    signal.signal(signum, signal.SIG_IGN)  # once is enough: the end must be written
    raise SystemExit(f"ended by {signal.Signals(signum).name}")
