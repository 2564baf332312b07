"""Signals, memory and exit status of a process that trains trials."""

import ctypes
import signal
from collections.abc import Sequence
from pathlib import Path

from fnostab.record.outcomes import TRAINING_OUTCOMES, Outcome
from fnostab.record.trial import TrialSpec
from fnostab.tasks.registry import make_task

__all__ = ["train_files"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST_THRESHOLD = 2**31 - 1  # bytes


def train_files(paths: Sequence[Path]) -> int:
    """Train what each trial.json describes, with journal and artifacts beside it; several of one arm side by side.

    From here on SIGTERM ends trials properly: as ``killed``, with a state to go on from.

    Returns:
        Exit status: 0 if all came to a training outcome, else 1.

    Raises:
        FnostabError: a single one could not be started, or they can't be trained side by side.
    """
    specs = [TrialSpec.read(path) for path in paths]
    keep_freed_memory()
    signal.signal(signal.SIGTERM, _terminate)  # from here on there is a journal to write the end into
    outcomes = make_task(specs[0].task).run(specs, [path.parent for path in paths])
    for spec, outcome in zip(specs, outcomes, strict=True):
        print(f"{spec.name}: {outcome or Outcome.INFRA_ERROR}")
    return 0 if all(outcome in TRAINING_OUTCOMES for outcome in outcomes) else 1


def keep_freed_memory() -> None:
    """Let glibc keep freed memory instead of returning it to the system immediately.

    Each step of a training takes and frees the same blocks of many megabytes. To fetch them anew is a page
    fault for every 4 KiB, which took 8 to 20 % of a step's CPU time. Elsewhere than on glibc nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
    mallopt(M_TRIM_THRESHOLD, LARGEST_THRESHOLD)


def _terminate(signum: int, frame: object) -> None:
    signal.signal(signum, signal.SIG_IGN)  # once is enough: the end must be written
    raise SystemExit(f"ended by {signal.Signals(signum).name}")
