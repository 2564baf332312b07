"""Time and memory of the commands that read a study: decide, export, watch and report, and what starting them takes.

    python -m benchmarks --only reading            # five minutes on two cores, 1.5 GB of disk
    python -m benchmarks --only reading --quick    # a minute: up to 1,000 trials, shorter histories

Each is a process of its own, as a user starts it, on SQLite databases of 100, 1,000 and 10,000 trials, on 300 trials
with 8,000 steps, and through a server. Times are medians, on the clock and of processors, where other work does not
count. Of a server they are those of its client alone.
"""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.stores import EXPERIMENT, Cost, add_histories, address, copy_trials, run, run_few
from benchmarks.timing import Row, compared

ROUNDS = 3
READERS = {
    "decide": ("decide", "--experiment", EXPERIMENT),
    "export": ("export", "trials.csv", "--experiment", EXPERIMENT),
    "watch --once": ("watch", EXPERIMENT, "--once", "--output", "none"),
    "report": ("report", "--experiment", EXPERIMENT, "-o", "report"),
}
STARTS = {
    "python -c pass": ("-c", "pass"),
    "fnostab --help": ("-m", "fnostab", "--help"),
    "fnostab --version": ("-m", "fnostab", "--version"),
    "fnostab ui --help": ("-m", "fnostab", "ui", "--help"),
    "fnostab decide --table": ("-m", "fnostab", "decide", "--table", "trials.csv"),
}
WORKERS = 4  # of the server, as `fnostab serve` has


def measure(quick: bool) -> list[Row]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        few = folder / "few"
        run_few(few)
        stores = {"100 trials": store(few, 100), "1,000 trials": store(few, 1000)}
        if not quick:
            stores["10,000 trials"] = store(few, 10_000)
        trials, steps = (30, 2000) if quick else (300, 8000)
        long = store(few, trials, steps)
        rounds = 1 if quick else ROUNDS
        rows = []
        for name, arguments in READERS.items():
            rows += of_reader(name, arguments, {**stores, f"{trials} trials of {steps:,} steps": long}, rounds)
        rows += through_a_server(stores)
        rows += of_starts(stores["100 trials"], 5 * rounds)
    return rows


def store(few: Path, n_trials: int, n_steps: int = 0) -> Path:
    """Folder with the database of ``n_trials``, with histories of ``n_steps`` if there are any."""
    folder = few.parent / f"{n_trials}-{n_steps}"
    shutil.copytree(few, folder, ignore=shutil.ignore_patterns("outputs"))
    filling = multiprocessing.Process(target=fill, args=(folder / "mlflow.db", n_trials, n_steps))
    filling.start()  # a process of its own: the peak memory of one that is started from here is never below ours
    filling.join()
    if filling.exitcode:
        sys.exit(filling.exitcode)
    return folder


def fill(database: Path, n_trials: int, n_steps: int) -> None:
    copy_trials(database, n_trials)
    if n_steps:
        add_histories(database, n_steps)


def of_reader(name: str, arguments: tuple[str, ...], stores: dict[str, Path], rounds: int) -> list[Row]:
    """Time and memory of a command on each store, as ratios to those on the first."""
    return by_quantity(
        name,
        {
            size: [run(folder, "-m", "fnostab", *arguments, "--tracking-uri", address(folder)) for _ in range(rounds)]
            for size, folder in stores.items()
        },
    )


def by_quantity(what: str, costs: dict[str, list[Cost]]) -> list[Row]:
    """Cost of each variant, as ratios to the first."""
    rows = compared(f"{what}, wall", {v: median(c.seconds for c in each) for v, each in costs.items()}, "s")
    rows += compared(f"{what}, CPU", {v: median(c.processor_seconds for c in each) for v, each in costs.items()}, "s")
    return rows + compared(f"{what}, peak", {v: max(c.peak_bytes for c in e) / 1e6 for v, e in costs.items()}, "MB")


def through_a_server(stores: dict[str, Path]) -> list[Row]:
    """`decide` on the largest store through an MLflow server, as a ratio to the same without."""
    size, folder = list(stores.items())[-1]
    arguments = ("-m", "fnostab", *READERS["decide"], "--tracking-uri")
    with server(folder) as url:
        costs = {
            "directly": [run(folder, *arguments, address(folder))],
            "through a server": [run(folder, *arguments, url)],
        }
    return by_quantity(f"decide, {size}", costs)


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """An MLflow server on loopback."""
    from fnostab.tracking import free_port, open_store, ui_command, wait_until_ready  # MLflow's 200 MB, see `store`

    port = free_port(5900)
    (*command, _), environment = ui_command(open_store(address(folder)), port)
    process = subprocess.Popen(
        [*command, str(WORKERS)],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, 120, process)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def of_starts(folder: Path, rounds: int) -> list[Row]:
    """Time until a command that asks no store has answered, as a ratio to Python alone; in turns."""
    run(folder, "-m", "fnostab", *READERS["export"], "--tracking-uri", address(folder))
    costs: dict[str, list[Cost]] = {name: [] for name in STARTS}
    for _ in range(rounds):
        for name, arguments in STARTS.items():
            costs[name].append(run(folder, *arguments))
    return [
        row for row in by_quantity("start", costs) if row["unit"] == "s"
    ]  # Python alone needs less than this process
