"""What recording every block's state costs: a validation batch with and without it, and its share of an epoch.

    python -m benchmarks.diagnostics            # full size: about two minutes on one core
    python -m benchmarks.diagnostics --small    # the small profile's network

Figures are ratios within one process, in rounds that take turns: the machine may be busy. The first
validation batch of an epoch is watched; steps of training are not.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.recording import FULL, SMALL, STEPS_AN_EPOCH, spec
from fnostab.callbacks.block_statistics import block_states
from fnostab.training.setup import set_up, watched_blocks


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        training = set_up(spec(SMALL if arguments.small else FULL, Path(scratch)))
        measure(training, arguments.rounds)


def measure(training, rounds):
    module = training.module
    blocks = watched_blocks(module.generator)
    amplitudes = next(iter(training.batches.val_dataloader()))[0]
    batch = next(iter(training.batches.train_dataloader()))
    optimizer = module.configure_optimizers()

    def plain():
        with torch.no_grad():
            module(amplitudes)

    def watched():
        with torch.no_grad(), block_states(blocks) as seen:
            module(amplitudes)
        for state in seen.values():
            for value in state.values():
                float(value)

    def step():
        optimizer.zero_grad()
        module.training_step(batch, 0).backward()
        optimizer.step()

    works = {"validation batch": plain, "the same, watched": watched, "training step": step}
    times = {name: [] for name in works}
    for round_ in range(rounds + 1):
        for name, work in works.items():
            started = time.process_time()  # other processes do not count
            work()
            if round_:  # the first warms up
                times[name].append(time.process_time() - started)
    medians = {name: statistics.median(found) for name, found in times.items()}
    of_batch, of_watched, of_step = medians.values()
    extra = statistics.median(b - a for a, b in zip(*list(times.values())[:2], strict=True))
    table = Table("what", "median")
    for name, seconds in medians.items():
        table.add_row(name, f"{seconds * 1e3:.0f} ms")
    table.add_row("watched over plain", f"{of_watched / of_batch:.3f}")
    table.add_row(f"share of an epoch of {STEPS_AN_EPOCH} steps", f"{extra / (STEPS_AN_EPOCH * of_step):.3%}")
    Console().print(table)


if __name__ == "__main__":
    main()
