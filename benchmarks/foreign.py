"""Time of `decide --runs` on MLflow runs recorded by another program, from SQLite and through a server.

    python -m benchmarks --only foreign            # 10,000 runs; five minutes on two cores, 200 MB of disk
    python -m benchmarks --only foreign --quick    # 1,000 runs

Each run has 30 params, 15 metrics and 10 tags, as from a library with automatic logging; the mapping uses five of
these. Two runs are created with MLflow and copied row by row, with other seeds and values.
"""

import multiprocessing
import sqlite3
import sys
import tempfile
import uuid
from pathlib import Path

import numpy as np
import psutil

from benchmarks.reading import by_quantity, server
from benchmarks.stores import TABLES, address, copy_rows, run
from benchmarks.timing import Row, row

FAILURE_RATES = {"base": 0.30, "norm": 0.25}
PARAMS, METRICS, TAGS = 30, 15, 10
MAPPING = """\
experiments: theirs
control: base
arm: params.model
seed: tags.seed
metric: metrics.return
higher_is_better: true
margin: 5
measures: {metrics.m_0: {margin: 0.1}}
failed: {nonfinite: metrics.loss, below: {metrics.return: -600}}
excluded: {status: FAILED}
"""
ROUNDS = 3
COMMAND = ("-m", "fnostab", "decide", "--runs", "runs.yaml", "--tracking-uri")


def measure(quick: bool) -> list[Row]:
    n_runs, rounds = (1000, 1) if quick else (10_000, ROUNDS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "runs.yaml").write_text(MAPPING)
        filling = multiprocessing.Process(target=fill, args=(folder, n_runs))
        filling.start()  # a separate process, as in `benchmarks.reading`
        filling.join()
        if filling.exitcode:
            sys.exit(filling.exitcode)
        costs = {"from SQLite": [run(folder, *COMMAND, address(folder)) for _ in range(rounds)]}
        with server(folder) as url:
            before = processor_seconds_below()
            costs["through a server"] = [run(folder, *COMMAND, url)]
            of_server = processor_seconds_below() - before
    outputs = {cost.output for each in costs.values() for cost in each}
    if len(outputs) > 1 or f"{n_runs} runs" not in outputs.pop():
        sys.exit("the answers differ, or not all runs were read")
    what = f"decide --runs, {n_runs:,} runs"
    return [*by_quantity(what, costs), row(f"{what}, CPU", "of the server itself", of_server, "s")]


def processor_seconds_below() -> float:
    """Processor time of all descendants of this process, including those that ended and were waited for."""
    return sum(sum(each.cpu_times()[:4]) for each in psutil.Process().children(recursive=True))


def fill(folder: Path, n_runs: int) -> None:
    """Create a database with ``n_runs`` runs, half of each arm."""
    from fnostab.tracking import open_store

    client = open_store(address(folder)).client
    experiment = client.create_experiment("theirs")
    templates = {arm: template(client, experiment, arm) for arm in FAILURE_RATES}
    rng = np.random.default_rng(0)
    with sqlite3.connect(folder / "mlflow.db") as connection:
        connection.execute("PRAGMA synchronous = OFF")
        for arm, first in templates.items():
            copies = [uuid.UUID(bytes=rng.bytes(16)).hex for _ in range(n_runs // len(templates) - 1)]
            for table, key in TABLES.items():
                copy_rows(connection, table, key, first, copies)
            seeds = [(str(seed), run_id) for seed, run_id in enumerate(copies, start=1)]
            connection.executemany("UPDATE tags SET value = ? WHERE run_uuid = ? AND key = 'seed'", seeds)
            failed = rng.random(len(copies)) < FAILURE_RATES[arm]
            returns = np.where(failed, -900.0, rng.normal(-100, 10, len(copies)))
            values = list(zip(returns.tolist(), copies, strict=True))
            connection.executemany("UPDATE latest_metrics SET value = ? WHERE run_uuid = ? AND key = 'return'", values)


def template(client, experiment: str, arm: str) -> str:
    """Create a run with MLflow; return its id."""
    from mlflow.entities import Metric, Param, RunTag

    run_id = client.create_run(experiment, tags={"seed": "0"}).info.run_id
    named = {"return": -100.0, "loss": 0.1, **{f"m_{n}": 1.5 for n in range(METRICS - 2)}}
    client.log_batch(
        run_id,
        metrics=[Metric(name, value, 0, 0) for name, value in named.items()],
        params=[Param("model", arm), *(Param(f"optimiser.setting_{n}", "0.001") for n in range(PARAMS - 1))],
        tags=[RunTag(f"tag_{n}", "of somebody's own") for n in range(TAGS - 1)],
    )
    client.set_terminated(run_id)
    return run_id
