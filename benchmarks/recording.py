"""What watching costs: step time at full size with and without monitor and black box, and the journal's fsync.

    python -m benchmarks.recording            # about three minutes on one core
    python -m benchmarks.recording --small    # the small profile's network

Every figure is a ratio within one run, in rounds that take turns: the machine may be busy.
"""

import argparse
import logging
import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.table import Table

from fnostab.callbacks import BlackBox, Snapshots, StateFiles
from fnostab.callbacks.snapshots import EVERY_STEPS
from fnostab.callbacks.state import take_state, write_state
from fnostab.config import TrialConfig
from fnostab.journal import Journal
from fnostab.training.setup import set_up
from fnostab.trial import TrialSpec

FULL = {"data.object_size": 240, "data.n_lines": 150}
SMALL = {"data.N": 32, "data.object_size": 120, "data.n_lines": 120, "data.scan_stride_test": 5}
SMALL |= {"model.hidden_channels": 8, "model.fno_blocks": 3, "model.fno_modes": 8}
VARIANTS = ("plain", "monitor", "monitor and black box")
STEPS_AN_EPOCH = 431  # at full size


class Clock(Callback):
    """Processor seconds from the start of one batch to the start of the next: other processes do not count."""

    def __init__(self):
        self.starts = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.starts.append(time.process_time())

    @property
    def steps(self):
        return [b - a for a, b in zip(self.starts[1:], self.starts[2:], strict=False)]  # the first warms up


class States(Callback):
    """Times one copy in memory and one file."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_end(self, trainer, pl_module):
        started = time.perf_counter()
        state = take_state(trainer)
        self.copy_s = time.perf_counter() - started
        write_state(state, self.folder / "state.safetensors")
        self.write_s = time.perf_counter() - started
        self.bytes = (self.folder / "state.safetensors").stat().st_size


def spec(settings, folder):
    config = TrialConfig.from_dotted(settings | {"training.epochs": 1, "execution.device": "cpu"})
    about = {
        "experiment": "benchmark",
        "study": "benchmark",
        "study_hash": "0" * 16,
        "profile": "full",
        "arm": "control",
    }
    return TrialSpec(**about, seed=0, config=config, data_dir=str(folder / "data"))


def steps(variant, trial, folder, n_steps):
    """Seconds of each step; the last callback's `States` too."""
    training = set_up(trial)
    clock, states = Clock(), States(folder)
    callbacks = [clock]
    with Journal(folder / f"journal-{time.monotonic_ns()}") as journal:
        if variant != "plain":
            monitor = training.monitor(journal)
            callbacks.append(monitor)
        if variant == VARIANTS[-1]:
            snapshots = Snapshots(monitor, folder)
            callbacks += [snapshots, BlackBox(monitor, snapshots, folder / "black_box", about={}), states]
        lightning.Trainer(
            accelerator="cpu",
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
    return clock.steps, states


def journal_costs(folder, n=2000):
    """Microseconds a point: handed to the operating system, and forced to the disk each time."""
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        trial = spec(SMALL if arguments.small else FULL, folder)
        times = {variant: [] for variant in VARIANTS}
        for _ in range(arguments.rounds):
            for variant in VARIANTS:
                found, states = steps(variant, trial, folder, arguments.steps + 2)
                times[variant] += found
        plain = statistics.median(times["plain"])
        table = Table("what", "median", "of a plain step")
        for variant, found in times.items():
            median = statistics.median(found)
            table.add_row(f"step, {variant}", f"{median * 1e3:.1f} ms", f"{median / plain:.3f}")
        table.add_row(
            f"copy of the state, every {EVERY_STEPS} steps",
            f"{states.copy_s * 1e3:.0f} ms",
            f"+{states.copy_s / EVERY_STEPS / plain:.4f}",
        )
        table.add_row(
            f"file of the state ({states.bytes / 1e6:.0f} MB), at most 2 % of the time",
            f"{states.write_s * 1e3:.0f} ms",
            f"+{min(0.02, states.write_s / STEPS_AN_EPOCH / plain):.4f} once an epoch of {STEPS_AN_EPOCH}",
        )
        for name, microseconds in journal_costs(folder).items():
            table.add_row(f"a point, {name}", f"{microseconds:.0f} µs", f"+{microseconds / 1e6 / plain:.4f}")
        console.print(table)


if __name__ == "__main__":
    main()
