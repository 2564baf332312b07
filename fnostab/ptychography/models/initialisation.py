"""Initial weights that depend only on the seed and the layer's name.

With the same seed, layers of the same name and shape have the same initial weights in all arms, so that arms can be
compared seed by seed. Weights are drawn on the CPU and thus do not depend on the device.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from fnostab.errors import ModelError
from fnostab.ptychography.models.generators import build_generator
from fnostab.ptychography.settings import ModelConfig
from fnostab.seeding import stream_seed


def build_initialised(config: ModelConfig, seed: int) -> nn.Module:
    """Build a network with the initial weights of ``seed``, without changing the global random state.

    Raises:
        ModelError: see `build_generator`.
    """
    with _cpu_seed(stream_seed(seed, "initialisation")):
        module = build_generator(config)
    initialise_(module, seed)
    return module


def initialise_(module: nn.Module, seed: int) -> None:
    """Redraw the weights of every layer, each from a random stream named after the layer.

    A layer is a module without children that has parameters and ``reset_parameters``. Other parameters keep the values
    from their constructor. To customise the initialisation of a layer, override its ``reset_parameters``; values
    assigned by a parent module are lost.

    Raises:
        ModelError: the module is not on the CPU.
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
    # Not torch.manual_seed: it would also reseed all accelerators, and saving their state would initialise them.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
