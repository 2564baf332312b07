"""A network for trials in jobs: `hybrid`, slow enough to be interrupted."""

import sys
import time
from pathlib import Path

import torch

PAUSE_S, LONG_PAUSE_S = 0.15, 0.5  # at every training step


def Network(config):  # noqa: N802 - a class to those who name it
    """``options`` name a trial that ``fails``, from its 40th step on, and one that is ``slow``."""
    from fnostab.models import build_generator

    network = build_generator(config.model_copy(update={"architecture": "hybrid", "options": {}}))
    if "--trial" not in sys.argv:
        return network
    trial = Path(sys.argv[-1]).parent.name
    fails, pause_s = config.options["fails"] == trial, LONG_PAUSE_S if config.options["slow"] == trial else PAUSE_S
    steps = 0

    def after_forward(module, inputs, output):
        nonlocal steps
        if module.training:
            steps += 1
            time.sleep(pause_s)
        return output * torch.nan if fails and steps >= 40 else output

    network.register_forward_hook(after_forward)
    return network
