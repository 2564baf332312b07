"""Cost of monitoring: step time at full size with and without monitor and black box, and cost of fsync.

    python -m benchmarks --only recording    # about three minutes on one core

Variants alternate in one run and are compared by ratios, since the machine may be busy. Differences of a few percent
are within the noise, so the time spent in the hooks of monitor and black box is also measured directly.
"""

import logging
import os
import tempfile
import time
import warnings
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from unittest.mock import patch

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from benchmarks.records import trial_record
from benchmarks.timing import Row, clock, compared, medians
from fnostab.monitor import BlackBox, Snapshots, StabilityMonitor, StateFiles
from fnostab.monitor.optimizer_watch import OptimizerWatch
from fnostab.monitor.snapshots import EVERY_STEPS
from fnostab.monitor.state import take_state, write_state
from fnostab.ptychography.training.setup import set_up
from fnostab.record.journal import Journal

FULL = {"data.object_size": 240, "data.n_lines": 150}
VARIANTS = ("plain", "monitor", "monitor and black box")
STEPS_AN_EPOCH = 431  # in the full profile
HOOKED_STEPS = 16
HOOKS = {  # called at every step; on_train_epoch_end reads the rest of a block; `_see` is called by torch
    StabilityMonitor: (
        "on_train_batch_start",
        "on_before_backward",
        "on_after_backward",
        "on_before_optimizer_step",
        "on_train_batch_end",
        "on_train_epoch_end",
    ),
    OptimizerWatch: ("_see",),
    BlackBox: ("on_train_batch_start", "on_train_batch_end"),
}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Clock(Callback):
    """Measure the seconds from the start of each batch to the start of the next."""

    def __init__(self):
        self.starts = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.starts.append(clock(DEVICE))

    @property
    def steps(self):
        return [b - a for a, b in zip(self.starts[1:], self.starts[2:], strict=False)]  # the first is a warm-up


class States(Callback):
    """Measure the time of copying the training state in memory, and of writing it to a file."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_end(self, trainer, pl_module):
        started = time.perf_counter()
        state = take_state(trainer)
        self.copy_s = time.perf_counter() - started
        write_state(state, self.folder / "state.safetensors")
        self.write_s = time.perf_counter() - started


@contextmanager
def hooks_timed():
    """Context that yields a list, to which the seconds of each call of `HOOKS` are appended."""
    spent = []

    def timed(hook):
        @wraps(hook)
        def run(*arguments):
            started = clock(DEVICE)
            hook(*arguments)
            spent.append(clock(DEVICE) - started)

        return run

    with ExitStack() as stack:
        for kind, hooks in HOOKS.items():
            for name in hooks:
                stack.enter_context(patch.object(kind, name, timed(getattr(kind, name))))
        yield spent


def full_size(folder):
    settings = FULL | {"training.epochs": 1, "execution.device": DEVICE}
    about = {"experiment": "benchmark", "study": "benchmark", "study_hash": "0" * 16, "profile": "full"}
    return trial_record(settings, folder / "data", **about, arm="control", seed=0)


def steps(variant, trial, folder, n_steps):
    """Train a variant for ``n_steps`` steps; return the seconds of each step, and the `States` callback."""
    training = set_up(trial)
    watch, states = Clock(), States(folder)
    callbacks = [watch]
    with Journal(folder / f"journal-{time.monotonic_ns()}") as journal:
        if variant != "plain":
            monitor = training.monitor(journal)
            callbacks.append(monitor)
        if variant == VARIANTS[-1]:
            snapshots = Snapshots(monitor, folder)
            callbacks += [snapshots, BlackBox(monitor, snapshots, folder / "black_box", about={}), states]
        lightning.Trainer(
            accelerator="gpu" if DEVICE == "cuda" else "cpu",
            max_epochs=1,
            limit_train_batches=n_steps,
            limit_val_batches=0,
            callbacks=callbacks,
            plugins=[StateFiles()],
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(training.module, training.batches)
    return watch.steps, states


def journal_costs(folder, n=2000):
    """Microseconds to record a step: handed to the operating system, and with an fsync each time."""
    point = {"train/loss": 0.1, "grad_norm/total": 1.0, "grad_norm/clipped": 1.0, "lr": 1e-3}
    found = {}
    for name, forced in (("to the operating system", False), ("forced to the disk", True)):
        with Journal(folder / f"fsync-{forced}") as journal:
            started = time.perf_counter()
            for step in range(n):
                journal.record(step, point)
                if forced:
                    os.fsync(journal._file.fileno())
            found[name] = (time.perf_counter() - started) / n * 1e6
    return found


def measure(quick: bool) -> list[Row]:
    """Rows for all variants, and for periodic work as a share of a step; the quick run has fewer steps."""
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    rounds, n_steps = (3, 4) if quick else (4, 8)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        trial = full_size(folder)
        times = {variant: [] for variant in VARIANTS}
        for _ in range(rounds):
            for variant in VARIANTS:
                found, states = steps(variant, trial, folder, n_steps + 2)
                times[variant] += found
        rows = compared("recorded step, full size", medians(times), "ms")
        plain = rows[0]["value"]
        in_hooks = {"plain": plain}
        for variant in VARIANTS[1:]:
            with hooks_timed() as spent:
                steps(variant, trial, folder, HOOKED_STEPS)
            in_hooks[variant] = sum(spent) / HOOKED_STEPS * 1e3
        rows += compared("a step's share in hooks, full size", in_hooks, "ms")
        now_and_then = {
            f"copy of the state, a {EVERY_STEPS}th of it": states.copy_s / EVERY_STEPS,
            "file of the state, its share of an epoch": states.write_s / STEPS_AN_EPOCH,
            **{f"a point, {name}": microseconds / 1e6 for name, microseconds in journal_costs(folder).items()},
        }
        shares = {"plain": plain} | {name: seconds * 1e3 for name, seconds in now_and_then.items()}
        return [*rows, *compared("a step's share, full size", shares, "ms")]
