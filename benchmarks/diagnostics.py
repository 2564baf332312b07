"""Cost of recording block statistics: time of a validation batch with and without, and share of an epoch.

    python -m benchmarks.diagnostics            # full size, about two minutes on one core
    python -m benchmarks.diagnostics --small    # network of the small profile

Variants alternate in one process and are compared by ratios, since the machine may be busy. Statistics are recorded
for the first validation batch of an epoch, not for training steps.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch

from benchmarks.recording import FULL, SMALL, STEPS_AN_EPOCH, spec
from benchmarks.timing import compared, in_turns, medians, table
from fnostab.monitor.block_statistics import block_states
from fnostab.ptychography.training.setup import set_up, watched_blocks


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        training = set_up(spec(SMALL if arguments.small else FULL, Path(scratch)))
        print(table(of_blocks(training, arguments.rounds)))


def of_blocks(training, rounds):
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

    times = in_turns({"plain": plain, "watched": watched, "training step": step}, rounds)
    extra = statistics.median(b - a for a, b in zip(times["plain"], times["watched"], strict=True)) * 1e3
    of_each = medians(times)
    of_step = of_each.pop("training step")
    epoch = {f"{STEPS_AN_EPOCH} training steps": STEPS_AN_EPOCH * of_step, "watching one batch": extra}
    return [*compared("validation batch", of_each, "ms"), *compared("an epoch", epoch, "ms")]


if __name__ == "__main__":
    main()
