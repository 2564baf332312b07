"""A network for trials in jobs: `hybrid`, which trains slowly and then waits, so that it can be interrupted."""

import sys
import time
from pathlib import Path

import torch

PAUSE_S = 0.1  # at every training step, so that curves grow while something befalls them
FAILS_AT, WAITS_AT = 40, 80  # steps of a process


def Network(config):  # noqa: N802 - a class to those who name it
    """``options`` name a trial that ``fails``, and the file for which all ``wait`` before they end."""
    from fnostab.ptychography.models import build_generator

    network = build_generator(config.model_copy(update={"architecture": "hybrid", "options": {}}))
    if "--trial" not in sys.argv:
        return network
    fails, waits_for = config.options["fails"] == Path(sys.argv[-1]).parent.name, Path(config.options["waits_for"])
    steps = 0

    def after_forward(module, inputs, output):
        nonlocal steps
        if module.training:
            steps += 1
            time.sleep(0 if waits_for.exists() else PAUSE_S)
            while steps >= WAITS_AT and not waits_for.exists():
                time.sleep(PAUSE_S)
        return output * torch.nan if fails and steps >= FAILS_AT else output

    network.register_forward_hook(after_forward)
    return network
