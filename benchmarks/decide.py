"""Time and memory of `fnostab decide --experiment` on a SQLite store of 10,000 trials.

A small study of one seed is run for real; its runs are then copied row by row in the database, with other seeds,
outcomes and losses, so that each copy holds what a trial of this version holds. The histories of metrics are not
copied: `decide` does not read them, and 10,000 trials have a hundred million points.
"""

import argparse
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np

from fnostab import names
from fnostab.names import ARM, FAILURE_STEP, OUTCOME, RULES_HELD, SEED, SHORT_SEED, TRIAL_ID, VAL_LOSS_BEST

TABLES = {"runs": "run_uuid", "tags": "run_uuid", "params": "run_uuid", "latest_metrics": "run_uuid"}
FAILURE_RATES = {"control": 0.30, "arch_fix": 0.05, "opt_fix": 0.15}
MEDIANS = {"control": 0.0138, "arch_fix": 0.0130, "opt_fix": 0.0140}
LOG_SD = 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--keep", type=Path, help="Where the database stays; used again if it is there.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        if not (folder / "mlflow.db").exists():
            run(folder, "run", "stage_a", "--profile", "small", "--seeds", "1", "--epochs", "1", "--tracking-uri", uri)
            copy_trials(folder / "mlflow.db", options.trials)
        start = time.perf_counter()
        output, peak_bytes = run(folder, "decide", "--experiment", "stage_a", "--tracking-uri", uri)
        print(output)
        seconds = time.perf_counter() - start
        print(f"fnostab decide of {options.trials} trials: {seconds:.1f} s, peak memory {peak_bytes / 1e6:.0f} MB")


def run(folder: Path, *arguments: str) -> tuple[str, int]:
    """What ``fnostab ARGUMENTS`` prints, and the most memory that it took."""
    command = [sys.executable, "-m", "fnostab", *arguments]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        output = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(output)
    return output, usage.ru_maxrss * 1024  # Linux counts in KiB


def copy_trials(database: Path, n_trials: int) -> None:
    """Copy the study's trials until it has ``n_trials``, with seeds from 1."""
    rng = np.random.default_rng(0)
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        templates = dict(
            connection.execute(
                "SELECT arm.value, arm.run_uuid FROM tags AS arm JOIN tags AS kind USING (run_uuid) "
                "WHERE arm.key = ? AND kind.key = ? AND kind.value = ?",
                (ARM, names.KIND, names.KIND_TRIAL),
            ).fetchall()
        )
        for arm, template in templates.items():
            seeds = range(1, (n_trials - 1 - list(templates).index(arm)) // len(templates) + 1)
            copies = [(seed, uuid.UUID(bytes=rng.bytes(16)).hex) for seed in seeds]
            for table, key in TABLES.items():
                copy_rows(connection, table, key, template, [run_id for _, run_id in copies])
            copy_inputs(connection, template, [run_id for _, run_id in copies])
            failed = rng.random(len(copies)) < FAILURE_RATES[arm]
            losses = np.exp(rng.normal(np.log(MEDIANS[arm]), LOG_SD, len(copies)))
            tags, metrics = [], []
            for (seed, run_id), fails, loss in zip(copies, failed, losses, strict=True):
                changed = {
                    SEED: seed,
                    SHORT_SEED: seed,
                    TRIAL_ID: f"copy-{arm}-{seed}",
                    "mlflow.runName": f"{arm}-{seed}",
                }
                changed |= {OUTCOME: "collapsed", RULES_HELD: "collapsed", FAILURE_STEP: 20} if fails else {}
                changed |= {} if fails else {OUTCOME: "converged", RULES_HELD: ""}
                tags += [(str(value), run_id, name) for name, value in changed.items()]
                metrics += [(0.18 if fails else loss, run_id, VAL_LOSS_BEST)]
                metrics += [(0.02 if fails else 0.9, run_id, names.AMPLITUDE_SPREAD)]
                metrics += [(0.9, run_id, names.VAL_SSIM_AMP)]
            connection.executemany("UPDATE tags SET value = ? WHERE run_uuid = ? AND key = ?", tags)
            connection.executemany("UPDATE latest_metrics SET value = ? WHERE run_uuid = ? AND key = ?", metrics)
            steps = [(run_id, FAILURE_STEP) for (_, run_id), fails in zip(copies, failed, strict=True) if not fails]
            connection.executemany("DELETE FROM tags WHERE run_uuid = ? AND key = ?", steps)


def copy_rows(connection: sqlite3.Connection, table: str, key: str, template: str, run_ids: list[str]) -> None:
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    rest = ", ".join(column for column in columns if column != key)
    connection.executemany(
        f"INSERT INTO {table} ({key}, {rest}) SELECT ?, {rest} FROM {table} WHERE {key} = ?",
        [(run_id, template) for run_id in run_ids],
    )


def copy_inputs(connection: sqlite3.Connection, template: str, run_ids: list[str]) -> None:
    """The data set that each run names."""
    connection.executemany(
        "INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id, step) "
        "SELECT ?, source_type, source_id, destination_type, ?, step FROM inputs WHERE destination_id = ?",
        [(uuid.uuid4().hex, run_id, template) for run_id in run_ids],
    )


if __name__ == "__main__":
    main()
