"""Load test of `fnostab serve` on a real database: several writers at full rate, without errors or lost points.

    python -m benchmarks.load [--store postgresql] [--seconds 60] [--markdown docs/reliability.md]

Each writer is a separate process with its own journal and uploader, as in a launcher. It records the next block of
steps as soon as the server has accepted the last one, so the server limits the rate.
"""

import argparse
import contextlib
import multiprocessing
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.fault_checks import check_trial, read_runs
from benchmarks.fault_places import postgresql
from benchmarks.records import trial_record
from fnostab.record import names
from fnostab.record.journal import Journal
from fnostab.record.outcomes import Outcome
from fnostab.serve.server import TrackingServer
from fnostab.serve.settings import ServerSettings
from fnostab.tracking import Uploader, free_port, open_store

EXPERIMENT = "load"
METRICS = (names.TRAIN_LOSS, names.GRAD_NORM, names.GRAD_NORM_CLIPPED, names.CLIP_FRACTION, names.LEARNING_RATE)
BLOCK_STEPS = 199  # 995 points: one request, together with the upload position
DRAIN_S = 120.0


@dataclass
class Load:
    """Result of a load test: points sent by the writers, and points in the database."""

    seconds: float = 0.0
    recorded: int = 0
    stored: int = 0
    blocks_s: list[float] = field(default_factory=list)  # from the first record of a block until it is stored
    problems: list[str] = field(default_factory=list)

    @property
    def table(self) -> str:
        """Results as a Markdown table."""
        p50, p99 = statistics.median(self.blocks_s), statistics.quantiles(self.blocks_s, n=100)[98]
        rows = {
            "points found/recorded": f"{self.stored}/{self.recorded}",
            "time": f"{self.seconds:.0f} s",
            "points a second": f"{self.recorded / self.seconds:.0f}",
            f"a block of {BLOCK_STEPS * len(METRICS)} points: median, 99th percentile, longest": f"{p50:.2f} s, "
            f"{p99:.2f} s, {max(self.blocks_s):.2f} s",
            "errors": "; ".join(self.problems) or "none",
        }
        return "\n".join(
            ["| what | result |", "|---|---|", *(f"| {what} | {result} |" for what, result in rows.items())]
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=["postgresql", "sqlite"], default="postgresql")
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--markdown", type=Path, help="Put the result into this file.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="load-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        database = (
            stack.enter_context(postgresql()) if options.store == "postgresql" else f"sqlite:///{folder}/mlflow.db"
        )
        server = stack.enter_context(TrackingServer(ServerSettings(folder / "server", database, port=free_port(5750))))
        found = load(folder, database, server.settings.url, options.writers, options.seconds)
    print(found.table)
    if options.markdown:
        from benchmarks.faults import write_section

        write_section(options.markdown, "load", found.table, "benchmarks/load.py")
    raise SystemExit(1 if found.problems else 0)


def load(folder: Path, database: str, url: str, writers: int, seconds: float) -> Load:
    """Run several writers against a server, then compare their journals with the database.

    Args:
        folder: folder of the journals.
        database: URL of the server's database, read directly at the end.
        url: URL of the server.
        writers: number of writers.
        seconds: duration for which they start new blocks.
    """
    context = multiprocessing.get_context("forkserver")  # imports MLflow only once
    context.set_forkserver_preload(["fnostab.tracking.upload.uploader"])
    directories = [folder / "outputs" / f"control-{seed}" for seed in range(writers)]
    found = Load()
    with context.Pool(writers) as pool:
        pool.map(_ready, range(writers), chunksize=1)
        started = time.monotonic()
        for blocks, problem in pool.starmap(_write, [(d, url, seconds) for d in directories], chunksize=1):
            found.blocks_s += blocks
            found.problems += [problem] if problem else []
        found.seconds = time.monotonic() - started
    runs = read_runs(database, EXPERIMENT)
    for directory in directories:
        trial = check_trial(directory, runs)
        found.recorded += trial.recorded
        found.stored += trial.stored
        found.problems += [f"{directory.name}: {problem}" for problem in trial.problems]
    return found


def _ready(_: int) -> None:
    time.sleep(0.5)  # so that every process of the pool gets one


def _write(directory: Path, url: str, seconds: float) -> tuple[list[float], str | None]:
    """Run one writer; return the seconds of each block, and its error if any."""
    blocks: list[float] = []
    _describe(directory)
    uploader = Uploader(open_store(url))
    uploader.follow(directory)
    with Journal(directory) as journal:
        end = time.monotonic() + seconds
        while (started := time.monotonic()) < end:
            first = len(blocks) * BLOCK_STEPS
            for step in range(first, first + BLOCK_STEPS):
                journal.record(step, {name: step + 1 / (1 + rank) for rank, name in enumerate(METRICS)})
            uploader.poll()
            if uploader.trouble:
                return blocks, f"{directory.name}: {uploader.trouble}"
            blocks.append(time.monotonic() - started)
        journal.event(names.OUTCOME_EVENT, {"outcome": str(Outcome.CONVERGED)})
    uploader.drain(DRAIN_S)
    return blocks, None


def _describe(directory: Path) -> None:
    seed = int(directory.name.rpartition("-")[2])
    about = {
        "experiment": EXPERIMENT,
        "study": EXPERIMENT,
        "study_hash": "0" * 16,
        "profile": "small",
        "arm": "control",
    }
    trial_record({}, "data", **about, seed=seed).write(directory / "trial.json")


if __name__ == "__main__":
    main()
