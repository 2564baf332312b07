"""Cost of recording a step (loss, gradient norm, learning rate), and start-up cost of a supervised trial.

python -m benchmarks.recorder             # a few seconds
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

from fnostab.record import names
from fnostab.record.journal import Journal
from fnostab.record.program_journal import ATTEMPT
from fnostab.record.trial import Metric, TrialSpec
from fnostab.recorder import Recorder

LIMIT_US = 50.0
LIMIT_START_S = 1.0
STARTS = 5
BLOCK_STEPS = 1000


def step_us(rec, steps):
    """Microseconds per step, as median and maximum over blocks, since the machine may be busy."""
    blocks = []
    for start in range(0, steps, BLOCK_STEPS):
        began = time.perf_counter()
        for step in range(start, start + BLOCK_STEPS):
            rec.step(step, loss=1.2345678901 / (step + 1), grad_norm=0.98765 + step, lr=1e-3)
        blocks.append((time.perf_counter() - began) / BLOCK_STEPS * 1e6)
    return statistics.median(blocks), max(blocks)


def start_s():
    """Seconds that the supervisor adds to a program that ends at once: difference of medians of alternating starts."""
    program, alone, supervised = (sys.executable, "-c", "import fnostab.recorder"), [], []
    for seed in range(STARTS):
        with tempfile.TemporaryDirectory() as folder:
            hashes = {"study_hash": "0" * 16, "config_hash": "0" * 16}
            spec = TrialSpec(
                **hashes,
                task="command",
                experiment="e",
                study="s",
                arm="a",
                seed=seed,
                settings={},
                metric=Metric(name="val/loss"),
                judged="val/loss",
                argv=program,
                working_directory=folder,
                shared_dir=folder,
            )
            path = Path(folder, "trial.json")
            spec.write(path)
            train = (sys.executable, "-m", "fnostab", "train", "--trial", str(path))
            for command, taken in ((program, alone), (train, supervised)):
                began = time.perf_counter()
                subprocess.run(command, capture_output=True, check=False)  # fails, since it records nothing
                taken.append(time.perf_counter() - began)
    return statistics.median(supervised) - statistics.median(alone)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50_000)
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as folder:
        with Journal(folder) as journal:
            journal.event(names.TAGS_EVENT, {names.OWNER: "1@here", ATTEMPT: "token"})
        inside = {"FNOSTAB_JOURNAL": folder, "FNOSTAB_TOKEN": "token"}
        with mock.patch.dict(os.environ, inside), Recorder() as rec:
            recorded, slowest = step_us(rec, steps)
        size = Path(folder, "journal.jsonl").stat().st_size
        began = time.perf_counter()
        with mock.patch.dict(os.environ, inside):
            Recorder().close()
        opened = time.perf_counter() - began
    with Recorder() as rec:
        outside, _ = step_us(rec, steps)
    verdict = "within" if recorded < LIMIT_US else "ABOVE"
    print(f"a step in a study     {recorded:6.1f} us (slowest block {slowest:.1f}), {verdict} {LIMIT_US:.0f} us")
    print(f"a step outside one    {outside:6.1f} us")
    added = start_s()
    verdict = "within" if added < LIMIT_START_S else "ABOVE"
    print(f"a trial's start adds  {added:6.2f} s, {verdict} {LIMIT_START_S:.0f} s")
    print(f"opened after {steps} steps of {size / steps:.0f} bytes: {opened * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
