"""Cost of depth: parameters, memory and step time of 4 to 16 blocks, compared with the published network.

    python -m benchmarks.depth [--blocks 4,6,8,12,16] [--markdown docs/depth.md]      # about fifteen minutes
    python -m benchmarks.depth --trial                                                # a whole trial of 8 blocks

Each network trains in a separate process, on one thread, at full size: N = 64, 32 channels, 12 modes, batch 16. Times
are processor seconds. Steps with and without checkpointing alternate in the same process.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.timing import resident, restart_peak, write_section

DEPTHS = (4, 6, 8, 12, 16)
VARIANTS = {  # with N = 64 and floor 4 the width does not exceed 512 anyway
    "cap 512, floor 4": {"model.max_hidden_channels": 512},
    "no cap, floor 2": {"model.min_resolution": 2},
}
UNCAPPED = 8  # number of blocks for which the network without a cap is measured too
ROUNDS = 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", default=",".join(map(str, DEPTHS)), help="Depths.  [default: %(default)s]")
    parser.add_argument("--trial", action="store_true", help="Run a whole trial of 8 blocks and say what it took.")
    parser.add_argument("--markdown", type=Path, help="Put the result into this file.")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(train_steps(json.loads(options.child))))
        return
    section = "trial" if options.trial else "depth"
    text = whole_trial() if options.trial else table([int(n) for n in options.blocks.split(",")])
    print(text)
    if options.markdown:
        write_section(options.markdown, section, text, "benchmarks/depth.py")


def table(depths):
    """Markdown table with a row for each depth and variant."""
    rows = [
        "| blocks | | parameters | weights, gradients, Adam "
        "| activations: computed / measured | checkpointed "
        "| resident: computed / measured | checkpointed | step, s | checkpointed "
        "| published network: parameters, complex as one | weights, gradients, Adam |",
        "|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, settings in VARIANTS.items():
        for blocks in depths:
            if blocks != UNCAPPED and "model.max_hidden_channels" not in settings:
                continue
            plain, checkpointed = (
                child(settings | {"model.fno_blocks": blocks, "model.checkpoint_blocks": flag})
                for flag in (False, True)
            )
            published, published_bytes = published_size(blocks)
            cells = [
                blocks,
                name,
                f"{plain['parameters'] / 1e6:.1f} M",
                gb(plain["state"]),
                *(f"{mb(one['computed'])} / {mb(one['counted'])}" for one in (plain, checkpointed)),
                *(f"{gb(one['state'] + one['computed'])} / {gb(one['rise'])}" for one in (plain, checkpointed)),
                f"{plain['step_s']:.2f}",
                f"x {plain['checkpointed_s'] / plain['step_s']:.2f}",
                f"{published / 1e6:,.1f} M",
                f"{published_bytes / 1e9:,.1f} GB",
            ]
            rows.append("| " + " | ".join(map(str, cells)) + " |")
            print(rows[-1], file=sys.stderr, flush=True)
    return "\n".join(rows)


def published_size(blocks):
    """Parameters of the published network, complex ones counted once; and bytes of weights, gradients and moments."""
    import torch

    from fnostab.ptychography.models import build_generator
    from fnostab.ptychography.settings import ModelConfig

    with torch.device("meta"):
        network = build_generator(ModelConfig(architecture="published_hybrid", fno_blocks=blocks))
    parameters = list(network.parameters())
    return sum(parameter.numel() for parameter in parameters), 4 * sum(parameter.nbytes for parameter in parameters)


def child(settings):
    """Run `train_steps` in a separate process."""
    command = [sys.executable, "-m", "benchmarks.depth", "--child", json.dumps(settings)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(answer.stdout)


def train_steps(settings):
    """Train a few steps, and measure their time and memory."""
    import time

    import torch

    from fnostab.ptychography.models import residual_blocks, training_size
    from fnostab.ptychography.settings import TrialConfig
    from fnostab.ptychography.training.step_cost import bare_trial, step_seconds, trace

    config = TrialConfig.from_dotted(settings)
    computed = trace(config)
    step_seconds(TrialConfig.from_dotted({"data.N": 16, "data.object_size": 40, "data.scan_stride_test": 4}), "cpu")
    before = resident("VmRSS")  # with all code of a step loaded
    restart_peak()

    torch.manual_seed(0)
    module, batch = bare_trial(config, "cpu")
    optimizer = module.configure_optimizers()
    patterns = batch()

    def step():
        started = time.process_time()
        loss = module.training_step(patterns, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return time.process_time() - started

    for _ in range(2):
        step()
    found = {"rise": resident("VmHWM") - before, "state": computed.state_bytes, "parameters": computed.parameters}
    if not config.model.checkpoint_blocks:
        times = {False: [], True: []}
        for _ in range(ROUNDS):
            for flag, of_flag in times.items():
                for block in residual_blocks(module).values():
                    block.checkpoint = flag
                of_flag.append(step())
        for block in residual_blocks(module).values():
            block.checkpoint = False
        found |= {"step_s": statistics.median(times[False]), "checkpointed_s": statistics.median(times[True])}
    counted = training_size(module, lambda: module.training_step(patterns, 0), 2)
    return found | {"computed": computed.activation_bytes, "counted": counted.activation_bytes}


def whole_trial():
    """Run a trial of 8 blocks as in a study, monitors included, on an object small enough for 68 steps."""
    from benchmarks.records import trial_record
    from fnostab.ptychography.estimates import Estimate
    from fnostab.ptychography.settings import TrialConfig
    from fnostab.ptychography.training.step_cost import COPIES, trace
    from fnostab.record import names
    from fnostab.record.journal import read_journal
    from fnostab.record.lines import Point

    settings = {"model.fno_blocks": 8, "model.max_hidden_channels": 512, "data.set_phi": True, "training.epochs": 2}
    settings |= {"data.object_size": 152, "data.n_lines": 150, "execution.device": "cpu"}
    config = TrialConfig.from_dotted(settings)
    about = {"experiment": "depth", "study": "depth", "study_hash": "0" * 16, "profile": "full", "arm": "control"}
    with tempfile.TemporaryDirectory(prefix="depth-") as scratch:
        path = Path(scratch) / "trial" / "trial.json"
        trial_record(settings, f"{scratch}/data", **about, seed=0).write(path)
        command = [sys.executable, "-m", "fnostab", "train", "--trial", str(path)]
        process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"the trial ended with {os.waitstatus_to_exitcode(status)}")
        records = [record for record, _ in read_journal(path.parent / "journal.jsonl")]
    losses = [r.values[names.TRAIN_LOSS] for r in records if isinstance(r, Point) and names.TRAIN_LOSS in r.values]
    needed = Estimate(config, trace(config), COPIES, patterns=(0, 0)).needed_bytes
    return (
        f"A trial of 8 blocks (cap 512, floor 4, batch 16) made {len(losses)} steps on one CPU thread, from a loss of "
        f"{losses[0]:.2f} to {losses[-1]:.2f}, and held at most {gb(usage.ru_maxrss * 1024)} resident; "
        f"`fnostab estimate` says {gb(needed)}."
    )


def gb(n_bytes):
    return f"{n_bytes / 1e9:.2f} GB"


def mb(n_bytes):
    return f"{n_bytes / 1e6:.0f} MB"


if __name__ == "__main__":
    main()
