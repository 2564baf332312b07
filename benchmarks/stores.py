"""Create stores with many trials for `benchmarks.reading` from a few real trials.

A small study with one seed is run; its runs are then copied row by row in the SQLite database, with other seeds,
outcomes and losses, so that each copy has the params, tags and metrics of a real trial. Histories are not copied, since
10,000 trials have a hundred million points. `add_histories` adds those that reports read.
"""

import os
import sqlite3
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fnostab.ptychography import metric_names
from fnostab.ptychography.settings import TrainingConfig
from fnostab.record import names
from fnostab.record.names import ARM, FAILURE_STEP, OUTCOME, RULES_HELD, SEED, SHORT_SEED, TRIAL_ID, VAL_LOSS_BEST

__all__ = ["EXPERIMENT", "Cost", "add_histories", "address", "copy_trials", "run", "run_few"]

EXPERIMENT = "stage_a"
TABLES = {"runs": "run_uuid", "tags": "run_uuid", "params": "run_uuid", "latest_metrics": "run_uuid"}
FAILURE_RATES = {"control": 0.30, "arch_fix": 0.05, "opt_fix": 0.15, "cure": 0.02}
MEDIANS = {"control": 0.0138, "arch_fix": 0.0130, "opt_fix": 0.0140, "cure": 0.0135}
LOG_SD = 0.3
EPOCHS = 20
SPIKES = 5  # gradient spikes per run
STARTED_MS = 1_700_000_000_000
LOSS = TrainingConfig().val_loss_name


@dataclass(frozen=True)
class Cost:
    """Output, wall time, processor time and peak memory of a process."""

    output: str
    seconds: float
    processor_seconds: float
    peak_bytes: int


def address(folder: Path) -> str:
    """URL of the database in a folder."""
    return f"sqlite:///{folder / 'mlflow.db'}"


def run(folder: Path, *arguments: str) -> Cost:
    """Run ``python ARGUMENTS``; if it fails, exit with its output."""
    with (
        open(os.devnull) as nothing,
        subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, stdin=nothing, stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        started = time.perf_counter()
        output = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(output)
    return Cost(output, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)  # Linux counts in KiB


def run_few(folder: Path) -> None:
    """Run one seed of each arm, with the store and records in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    study = ("run", EXPERIMENT, "--profile", "small", "--seeds", "1", "--epochs", "1")
    run(folder, "-m", "fnostab", *study, "--tracking-uri", address(folder))


def copy_trials(database: Path, n_trials: int) -> None:
    """Copy the study's trials, with seeds from 1, until there are ``n_trials``."""
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
                metrics += [(0.02 if fails else 0.9, run_id, metric_names.SPREAD)]
                metrics += [(0.9, run_id, metric_names.VAL_SSIM_AMP)]
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
    """Copy the data set inputs of a run to other runs."""
    connection.executemany(
        "INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id, step) "
        "SELECT ?, source_type, source_id, destination_type, ?, step FROM inputs WHERE destination_id = ?",
        [(uuid.uuid4().hex, run_id, template) for run_id in run_ids],
    )


def add_histories(database: Path, n_steps: int) -> None:
    """Add histories to every trial: ``n_steps`` gradient norms with spikes, their window maxima, and losses."""
    rng = np.random.default_rng(1)
    validations = np.linspace(0, n_steps - 1, EPOCHS + 1, dtype=int)[1:]
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        kind = (names.KIND, names.KIND_TRIAL)
        trials = connection.execute("SELECT run_uuid FROM tags WHERE key = ? AND value = ?", kind).fetchall()
        connection.execute("DELETE FROM metrics")
        for (run_id,) in trials:
            norms = np.exp(rng.normal(0, 0.5, n_steps))
            norms[rng.integers(0, n_steps, SPIKES)] *= 1e4
            windows = [part[np.argmax(norms[part])] for part in np.array_split(np.arange(n_steps), names.WINDOWS)]
            losses = 0.1 * np.exp(-np.arange(EPOCHS) / 5 + rng.normal(0, 0.1, EPOCHS))
            add_history(connection, run_id, names.GRAD_NORM, np.arange(n_steps), norms)
            add_history(connection, run_id, names.GRAD_NORM_WINDOW_MAX, np.array(windows), norms[windows])
            add_history(connection, run_id, f"{names.VAL_PREFIX}{LOSS}", validations, losses)
        last = (n_steps - 1, names.LAST_STEP)
        connection.execute("UPDATE latest_metrics SET value = ? WHERE key = ?", last)


def add_history(connection: sqlite3.Connection, run_id: str, name: str, steps: np.ndarray, values: np.ndarray) -> None:
    rows = zip(values.tolist(), steps.tolist(), strict=True)
    connection.executemany(
        "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, 0)",
        [(name, value, STARTED_MS + step, run_id, step) for value, step in rows],
    )
