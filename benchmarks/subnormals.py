"""Time of a training step with and without subnormal numbers, below 1.2e-38, in the gradients.

    python -m benchmarks --only subnormals

GELU's derivative makes them where its inputs are very negative, as in a trained network. Here a tenth of all biases are
lowered by 13, which is enough. Trainings treat subnormal numbers as zero (`fnostab.ptychography.training.precision`).
Times are processor times of one thread.
"""

from functools import partial

import torch

from benchmarks.timing import compared, in_turns, medians
from fnostab.launch.process import keep_freed_memory
from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.training.step_cost import bare_trial

PROFILES = {"full size": {}, "small": {"data.N": 32, "model.hidden_channels": 8, "model.fno_modes": 8}}
LOWER = 13.0  # GELU's derivative at -13 is 1e-36, to be multiplied by gradients of 1e-5


def measure(quick):
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = []
    for profile, settings in PROFILES.items():
        torch.manual_seed(0)
        initial, lowered = (training_step(settings, lower) for lower in (0.0, LOWER))
        works = {
            "no subnormals": partial(flushed, False, initial),
            "subnormals": partial(flushed, False, lowered),
            "subnormals as zero": partial(flushed, True, lowered),
        }
        times = medians(in_turns(works, rounds=3 if quick else 7))
        rows += compared(f"hybrid, 4 blocks, {profile}", times, "ms")
    return rows


def training_step(settings, lower):
    """Function that makes a training step of a network in which every tenth bias is lowered."""
    module, batch = bare_trial(TrialConfig.from_dotted({"model.architecture": "hybrid", **settings}), "cpu")
    for name, parameter in module.generator.named_parameters():
        if name.endswith("bias"):
            parameter.data[::10] -= lower
    optimizer, patterns = module.configure_optimizers(), batch()

    def step():
        optimizer.zero_grad()
        module.training_step(patterns, 0).backward()
        optimizer.step()

    return step


def flushed(flush, step):
    torch.set_flush_denormal(flush)
    step()
    torch.set_flush_denormal(False)
