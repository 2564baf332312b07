"""Several seeds of one arm: one process after the other, and side by side.

    python -m benchmarks --only seeds

Wall time for all trials of the small profile, one thread a process. Other programs must not run meanwhile.
"""

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from benchmarks.timing import Row, compared
from benchmarks.trial import ROOT, clear, new_trial, run

SEEDS = {True: 2, False: 6}  # quick or not
ROUNDS = {True: 1, False: 3}


def measure(quick: bool) -> list[Row]:
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="seeds-") as temporary:
        made = [new_trial(Path(temporary) / f"seed {seed}", ROOT, seed) for seed in range(SEEDS[quick])]
        train(made[:1], 1)  # Python's compiled files are there
        times: dict[str, list[float]] = {}
        for _ in range(ROUNDS[quick]):
            for jobs in dict.fromkeys((1, 2, cores)):
                at_once = f"{jobs} process" + "es side by side" * (jobs > 1)
                times.setdefault(at_once, []).append(train(made, jobs))
    walls = {variant: median(found) for variant, found in times.items()}
    return compared(f"{len(made)} seeds, wall", walls, "s")


def train(trials: list[Path], jobs: int) -> float:
    """Seconds for all of them, so many at once."""
    for trial in trials:
        clear(trial)
    started = time.perf_counter()
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda trial: run(ROOT, "-m", "fnostab", "train", "--trial", str(trial)), trials))
    return time.perf_counter() - started
