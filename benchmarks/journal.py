"""Throughput of a journal, and of its upload to a SQLite file and through a server.

    python -m benchmarks --only journal

A step records the loss, the gradient norm before and after clipping, and the learning rate.
"""

import tempfile
import time
import uuid
from pathlib import Path

from benchmarks.fault_places import Server
from benchmarks.timing import Row, row
from fnostab.record import names
from fnostab.record.journal import Journal
from fnostab.tracking import Uploader, free_port, open_store
from fnostab.tracking.upload.identity import LiveRun

STEPS = {True: 2_000, False: 20_000}  # quick or not
POINT = {names.TRAIN_LOSS: 0.1, names.GRAD_NORM: 1.0, names.GRAD_NORM_CLIPPED: 1.0, names.LEARNING_RATE: 1e-3}
TIMEOUT_S = 300.0


def measure(quick: bool) -> list[Row]:
    n_points = STEPS[quick] * len(POINT)
    with tempfile.TemporaryDirectory(prefix="journal-") as temporary:
        folder = Path(temporary)
        store = f"sqlite:///{folder / 'mlflow.db'}"
        open_store(store).client.search_experiments()  # creates the tables
        seconds = {"journal": write(folder / "of-file", STEPS[quick])}
        seconds["to a SQLite file"] = send(folder / "of-file", store)
        write(folder / "of-server", STEPS[quick])
        with Server(store, folder / "server", free_port()) as server:
            seconds["through a server on SQLite"] = send(folder / "of-server", server.url)
    rates = {variant: n_points / each / 1e3 for variant, each in seconds.items()}
    rows = []
    for variant, rate in rates.items():
        compared_with = () if variant == "journal" else (rate / rates["journal"], "journal")
        rows.append(row(f"{n_points:,} values", variant, rate, "thousand/s", *compared_with))
    return rows


def write(folder: Path, n_steps: int) -> float:
    """Seconds to record ``n_steps`` steps."""
    folder.mkdir()
    LiveRun("journal", folder.name, uuid.uuid4().hex).write(folder)
    with Journal(folder) as journal:
        journal.event(names.TAGS_EVENT, {names.ARM: "control"})
        started = time.perf_counter()
        for step in range(n_steps):
            journal.record(step, POINT)
        return time.perf_counter() - started


def send(folder: Path, uri: str) -> float:
    """Seconds to upload a journal."""
    uploader = Uploader(open_store(uri))
    uploader.follow(folder)
    started = time.perf_counter()
    uploader.drain(TIMEOUT_S)
    return time.perf_counter() - started
