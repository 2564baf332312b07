"""Time and memory of the commands that read a study: decide, export, watch and report, and what starting them takes.

    python -m benchmarks.reading            # ten minutes on two cores, 3 GB of disk
    python -m benchmarks.reading --quick    # a minute: up to 1,000 trials, shorter histories

Each is a process of its own, as a user starts it, on SQLite databases of 100, 1,000 and 10,000 trials, on 300 trials
with 8,000 steps, and through a server. Times are medians; the ratios hold within one run, whatever else the machine
does.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.stores import EXPERIMENT, add_histories, address, copy_trials, run, run_few
from fnostab.tracking import free_port, open_store, ui_command, wait_until_ready

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


def measure(quick: bool) -> list[dict[str, Any]]:
    """Rows with the keys what, value, unit, ratio and ratio_to."""
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
    copy_trials(folder / "mlflow.db", n_trials)
    if n_steps:
        add_histories(folder / "mlflow.db", n_steps)
    return folder


def of_reader(
    name: str, arguments: tuple[str, ...], stores: dict[str, Path], rounds: int, uri: Callable[[Path], str] = address
) -> Iterator[dict[str, Any]]:
    """Time and memory of a command on each store, as ratios to those on the first."""
    first: dict[str, float] = {}
    for size, folder in stores.items():
        costs = [run(folder, "-m", "fnostab", *arguments, "--tracking-uri", uri(folder)) for _ in range(rounds)]
        values = {"s": median(c.seconds for c in costs), "MB": max(c.peak_bytes for c in costs) / 1e6}
        first = first or values
        for unit, value in values.items():
            yield row(f"{name}, {size}", value, unit, value / first[unit], f"{name}, {next(iter(stores))}")


def through_a_server(stores: dict[str, Path]) -> list[dict[str, Any]]:
    """`decide` on the largest store through an MLflow server, as a ratio to the same without."""
    size, folder = list(stores.items())[-1]
    rows = list(of_reader("decide", READERS["decide"], {size: folder}, 1))
    with server(folder) as url:
        rows += of_reader("decide through a server", READERS["decide"], {size: folder}, 1, lambda _: url)
    direct, served = (r["value"] for r in rows if r["unit"] == "s")
    return [row(rows[2]["what"], served, "s", served / direct, rows[0]["what"])]


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """An MLflow server on loopback."""
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


def of_starts(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """What it takes until a command has answered that asks no store, as a ratio to Python alone; in turns."""
    run(folder, "-m", "fnostab", *READERS["export"], "--tracking-uri", address(folder))
    seconds: dict[str, list[float]] = {name: [] for name in STARTS}
    for _ in range(rounds):
        for name, arguments in STARTS.items():
            seconds[name].append(run(folder, *arguments).seconds)
    python, *_ = seconds
    return [row(name, median(s), "s", median(s) / median(seconds[python]), python) for name, s in seconds.items()]


def row(what: str, value: float, unit: str, ratio: float, ratio_to: str) -> dict[str, Any]:
    return {"what": what, "value": value, "unit": unit, "ratio": ratio, "ratio_to": ratio_to}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    table = Table("what", "value", "ratio", "to")
    for each in measure(parser.parse_args().quick):
        to = "" if each["what"] == each["ratio_to"] else each["ratio_to"]
        value = f"{each['value']:.2f} s" if each["unit"] == "s" else f"{each['value']:.0f} {each['unit']}"
        table.add_row(each["what"], value, f"{each['ratio']:.2f}" if to else "", to)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    main()
