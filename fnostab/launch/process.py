"""Signals, memory and exit status of a process that trains trials."""

import ctypes
import signal
from collections.abc import Sequence
from pathlib import Path

from fnostab.record.outcomes import TRAINING_OUTCOMES, Outcome
from fnostab.record.progress import TrialProgress
from fnostab.record.trial import TrialSpec
from fnostab.tasks.registry import make_task

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST_THRESHOLD = 2**31 - 1  # bytes


def train_files(paths: Sequence[Path]) -> int:
    """Train the trial of each trial.json, with journal and artifacts beside it; several of one arm in lockstep.

    From here on, SIGTERM ends trials properly: as ``killed``, with a resume point.

    Returns:
        Exit status: 0 if all reached a training outcome, else 1.

    Raises:
        FnostabError: a single trial could not be started, or several can't be trained together.
    """
    specs = [TrialSpec.read(path) for path in paths]
    keep_freed_memory()
    signal.signal(signal.SIGTERM, _terminate)  # from here on, a journal can record the end
    outcomes = make_task(specs[0].task).run(specs, [path.parent for path in paths])
    for spec, path, outcome in zip(specs, paths, outcomes, strict=True):
        trial = TrialProgress(spec, path.parent)
        trial.update()
        print(f"{trial.name}: {outcome or Outcome.INFRA_ERROR}{trial.where_failed}")
    return 0 if all(outcome in TRAINING_OUTCOMES for outcome in outcomes) else 1


def keep_freed_memory() -> None:
    """Let glibc keep freed memory instead of returning it to the system immediately.

    Each training step allocates and frees the same blocks of many megabytes. Allocating them anew costs a page
    fault per 4 KiB, 8 to 20 % of a step's CPU time. Does nothing without glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
    mallopt(M_TRIM_THRESHOLD, LARGEST_THRESHOLD)


def _terminate(signum: int, frame: object) -> None:
    signal.signal(signum, signal.SIG_IGN)  # ignore further signals: the end must be written
    raise SystemExit(f"ended by {signal.Signals(signum).name}")
