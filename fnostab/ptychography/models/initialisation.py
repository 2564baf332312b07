"""Weights that depend on the seed and the layer's name alone.

Layers of equal name and shape start equal in all arms at one seed, whatever else was built, so that
arms can be compared seed by seed. Weights are drawn on the CPU and are thus the same for any device.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from fnostab.errors import ModelError
from fnostab.ptychography.models.registry import build_generator
from fnostab.ptychography.settings import ModelConfig
from fnostab.seeding import stream_seed

__all__ = ["build_initialised", "initialise_"]


def build_initialised(config: ModelConfig, seed: int) -> nn.Module:
    """Build a network with the weights of ``seed``; the global random state is left as it was.

    Raises:
        ModelError: as `build_generator`.
    """
    with _cpu_seed(stream_seed(seed, "initialisation")):
        module = build_generator(config)
    initialise_(module, seed)
    return module


def initialise_(module: nn.Module, seed: int) -> None:
    """Draw the weights of every layer anew, each from a random stream named after the layer.

    A layer is a module without children that owns parameters and has ``reset_parameters``. Other
    parameters keep what their constructor gave them. A layer that is to start otherwise than its type
    does overrides ``reset_parameters``; what a parent wrote into it is lost.

    Raises:
        ModelError: the module is on another device than the CPU.
    """
    for name, layer in module.named_modules():
        parameters = list(layer.parameters(recurse=False))
        reset = getattr(layer, "reset_parameters", None)
        if not parameters or not callable(reset) or any(layer.children()):
            continue
        device = parameters[0].device
        if device.type not in ("cpu", "meta"):
            raise ModelError(f"initialise_: expected {name} on the CPU, got {device}; move the network afterwards")
        with _cpu_seed(stream_seed(seed, "initialisation", name)):
            reset()


@contextmanager
def _cpu_seed(seed: int) -> Iterator[None]:
    # Not torch.manual_seed: it would also reseed all accelerators, and saving their state would start them.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
