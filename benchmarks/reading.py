"""Time and memory of the commands that read a study (decide, export, watch, report), and their start-up time.

    python -m benchmarks --only reading            # five minutes on two cores, 1.5 GB of disk
    python -m benchmarks --only reading --quick    # a minute: up to 1,000 trials, shorter histories

Each command runs in a separate process, as for a user, on SQLite databases of 100, 1,000 and 10,000 trials, on 300
trials with 8,000 steps, and through a server. Wall and processor times are medians; with a server they are those of the
client only.
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
WORKERS = 4  # of the server, as in `fnostab serve`


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
    """Create a folder with a database of ``n_trials`` trials, with histories of ``n_steps`` steps if not 0."""
    folder = few.parent / f"{n_trials}-{n_steps}"
    shutil.copytree(few, folder, ignore=shutil.ignore_patterns("outputs"))
    filling = multiprocessing.Process(target=fill, args=(folder / "mlflow.db", n_trials, n_steps))
    filling.start()  # separate, since the peak memory of child processes is at least that of this one
    filling.join()
    if filling.exitcode:
        sys.exit(filling.exitcode)
    return folder


def fill(database: Path, n_trials: int, n_steps: int) -> None:
    copy_trials(database, n_trials)
    if n_steps:
        add_histories(database, n_steps)


def of_reader(name: str, arguments: tuple[str, ...], stores: dict[str, Path], rounds: int) -> list[Row]:
    """Time and memory of a command on each store, relative to the first."""
    return by_quantity(
        name,
        {
            size: [run(folder, "-m", "fnostab", *arguments, "--tracking-uri", address(folder)) for _ in range(rounds)]
            for size, folder in stores.items()
        },
    )


def by_quantity(what: str, costs: dict[str, list[Cost]]) -> list[Row]:
    """Rows of wall time, processor time and peak memory of each variant, relative to the first."""
    rows = compared(f"{what}, wall", {v: median(c.seconds for c in each) for v, each in costs.items()}, "s")
    rows += compared(f"{what}, CPU", {v: median(c.processor_seconds for c in each) for v, each in costs.items()}, "s")
    return rows + compared(f"{what}, peak", {v: max(c.peak_bytes for c in e) / 1e6 for v, e in costs.items()}, "MB")


def through_a_server(stores: dict[str, Path]) -> list[Row]:
    """Cost of `decide` on the largest store through an MLflow server, relative to direct access."""
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
    """Context with an MLflow server on localhost; yields its URL."""
    from fnostab.tracking import free_port, open_store, ui_command, wait_until_ready  # late: 200 MB, see `store`

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
    """Time of commands that need no store, relative to Python alone; variants alternate."""
    run(folder, "-m", "fnostab", *READERS["export"], "--tracking-uri", address(folder))
    costs: dict[str, list[Cost]] = {name: [] for name in STARTS}
    for _ in range(rounds):
        for name, arguments in STARTS.items():
            costs[name].append(run(folder, *arguments))
    return [
        row for row in by_quantity("start", costs) if row["unit"] == "s"
    ]  # no peak memory: that of Python alone is below this process's
