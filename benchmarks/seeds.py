"""Wall time of several seeds of one arm: in sequence, in parallel processes, and in lockstep.

    python -m benchmarks --only seeds

Trials have the small profile and one thread per process. No other programs should run meanwhile.
"""

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from statistics import median

from benchmarks.processes import clear, new_trials, run
from benchmarks.timing import Row, compared

SEEDS = {True: 2, False: 6}  # quick or not
ROUNDS = {True: 1, False: 3}


def measure(quick: bool) -> list[Row]:
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="seeds-") as temporary:
        made = new_trials(Path(temporary) / "trials", SEEDS[quick])
        train([made[:1]], 1)  # warm-up, which compiles Python's files
        times: dict[str, list[float]] = {}
        for _ in range(ROUNDS[quick]):
            for jobs in dict.fromkeys((1, 2, cores)):
                at_once = f"{jobs} process" + "es side by side" * (jobs > 1)
                times.setdefault(at_once, []).append(train([[trial] for trial in made], jobs))
                together = f"in lockstep, all seeds of {jobs} process" + "es" * (jobs > 1)
                times.setdefault(together, []).append(train([made[n::jobs] for n in range(jobs)], jobs))
    walls = {variant: median(found) for variant, found in times.items()}
    return compared(f"{len(made)} seeds, wall", walls, "s")


def train(processes: list[list[Path]], jobs: int) -> float:
    """Seconds to train all trials, with ``jobs`` processes at a time; each process trains a list of trials."""
    for trial in chain.from_iterable(processes):
        clear(trial)

    def start(trials: list[Path]) -> None:
        run("-m", "fnostab", "train", *(part for trial in trials for part in ("--trial", str(trial))))

    started = time.perf_counter()
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(start, processes))
    return time.perf_counter() - started
