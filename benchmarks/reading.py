"""Time and memory of the commands that read a study: decide, export, watch and report, and what starting them takes.

    python -m benchmarks.reading            # five minutes on two cores, 1.5 GB of disk
    python -m benchmarks.reading --quick    # a minute: up to 1,000 trials, shorter histories

Each is a process of its own, as a user starts it, on SQLite databases of 100, 1,000 and 10,000 trials, on 300 trials
with 8,000 steps, and through a server. Times are medians, on the clock and of processors, where other work does not
count; the table's ratios are of the latter. Of a server they are those of its client alone.
"""

import argparse
import multiprocessing
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
from rich.table import Column, Table

from benchmarks.stores import EXPERIMENT, Cost, add_histories, address, copy_trials, run, run_few

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
UNITS = {"s": "{:.2f}", "processor s": "{:.2f}", "MB": "{:.0f}"}  # and how the table shows them
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
        rows += of_starts(stores["100 trials"], 5 * rounds)
        rows += through_a_server(stores)
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


def of_reader(
    name: str, arguments: tuple[str, ...], stores: dict[str, Path], rounds: int, uri: Callable[[Path], str] = address
) -> Iterator[dict[str, Any]]:
    """Time and memory of a command on each store, as ratios to those on the first."""
    first: dict[str, float] = {}
    for size, folder in stores.items():
        found = values([run(folder, "-m", "fnostab", *arguments, "--tracking-uri", uri(folder)) for _ in range(rounds)])
        first = first or found
        for unit, value in found.items():
            yield row(f"{name}, {size}", value, unit, value / first[unit], f"{name}, {next(iter(stores))}")


def values(costs: list[Cost]) -> dict[str, float]:
    """By unit."""
    return {
        "s": median(c.seconds for c in costs),
        "processor s": median(c.processor_seconds for c in costs),
        "MB": max(c.peak_bytes for c in costs) / 1e6,
    }


def through_a_server(stores: dict[str, Path]) -> list[dict[str, Any]]:
    """`decide` on the largest store through an MLflow server, as a ratio to the same without."""
    size, folder = list(stores.items())[-1]
    rows = list(of_reader("decide", READERS["decide"], {size: folder}, 1))
    with server(folder) as url:
        rows += of_reader("decide through a server", READERS["decide"], {size: folder}, 1, lambda _: url)
    direct, served = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    return [{**s, "ratio": s["value"] / d["value"], "ratio_to": d["what"]} for d, s in zip(direct, served, strict=True)]


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


def of_starts(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """What it takes until a command has answered that asks no store, as a ratio to Python alone; in turns."""
    run(folder, "-m", "fnostab", *READERS["export"], "--tracking-uri", address(folder))
    costs: dict[str, list[Cost]] = {name: [] for name in STARTS}
    for _ in range(rounds):
        for name, arguments in STARTS.items():
            costs[name].append(run(folder, *arguments))
    python, *_ = found = {name: values(each) for name, each in costs.items()}
    units = [unit for unit in UNITS if unit != "MB"]  # Python alone needs less than this process
    return [row(n, of[unit], unit, of[unit] / found[python][unit], python) for n, of in found.items() for unit in units]


def row(what: str, value: float, unit: str, ratio: float, ratio_to: str) -> dict[str, Any]:
    return {"what": what, "value": value, "unit": unit, "ratio": ratio, "ratio_to": ratio_to}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    rows = measure(parser.parse_args().quick)
    table = Table("what", *(Column(unit, justify="right") for unit in UNITS), Column("ratio", justify="right"), "to")
    for what in dict.fromkeys(each["what"] for each in rows):
        of = {each["unit"]: each for each in rows if each["what"] == what}
        ratio, to = of["processor s"]["ratio"], of["processor s"]["ratio_to"]
        cells = [form.format(of[unit]["value"]) if unit in of else "" for unit, form in UNITS.items()]
        table.add_row(what, *cells, *(("", "") if to == what else (f"{ratio:.2f}", to)))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    main()
