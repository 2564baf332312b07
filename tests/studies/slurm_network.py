"""A network for trials in jobs: `hybrid`, slow enough to be interrupted, one of whose trials fails."""

import sys
import time
from pathlib import Path

import torch

PAUSE_S = 0.05  # at every training step


def Network(config):  # noqa: N802 - a class to those who name it
    """``options.fails`` names the trial whose output is not finite from its 40th step on."""
    from fnostab.models import build_generator

    network = build_generator(config.model_copy(update={"architecture": "hybrid", "options": {}}))
    if "--trial" not in sys.argv:
        return network
    fails = config.options["fails"] == Path(sys.argv[-1]).parent.name
    steps = 0

    def after_forward(module, inputs, output):
        nonlocal steps
        if module.training:
            steps += 1
            time.sleep(PAUSE_S)
        return output * torch.nan if fails and steps >= 40 else output

    network.register_forward_hook(after_forward)
    return network
