"""Build the network of ``model.architecture``; the contract that every network keeps.

A generator is built by a callable that takes a `ModelConfig` and returns an ``nn.Module``, which maps
measured amplitudes (B, 1, N, N) float32 to object patches (B, 1, N, N) complex64.
"""

import importlib
from collections.abc import Callable

import torch
from torch import nn

from fnostab.errors import FnostabError, ModelError
from fnostab.ptychography.models.blocks import residual_blocks
from fnostab.ptychography.models.fno import FNO
from fnostab.ptychography.models.hybrid import HybridUNO
from fnostab.ptychography.settings import ModelConfig

__all__ = ["GENERATORS", "build_generator", "check_generator"]

Builder = Callable[[ModelConfig], nn.Module]

GENERATORS: dict[str, Builder] = {
    "fno": FNO,
    "hybrid": HybridUNO,
    # with parts of their own, see fnostab.ptychography.settings.ARCHITECTURES and PRESETS
    "stable_hybrid": HybridUNO,
    "bounded_hybrid": HybridUNO,
    "published_hybrid": HybridUNO,
}


def build_generator(config: ModelConfig) -> nn.Module:
    """Build the network that ``config.architecture`` names: a built-in, or ``package.module.Class``.

    A network of your own is called with ``config``; its own settings are in ``config.options``.

    Raises:
        ModelError: it can't be imported or built, is not an ``nn.Module``, or has no blocks to checkpoint
            though ``config.checkpoint_blocks`` asks for it.
    """
    builder = GENERATORS.get(config.architecture)
    if builder is not None:
        return builder(config)
    name = config.architecture
    try:
        module = _import_builder(name)(config)
    except FnostabError:
        raise
    except Exception as error:
        raise ModelError(f"{name}(config) raised {_one_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise ModelError(f"{name}(config): expected a torch.nn.Module, got {type(module).__name__}")
    if config.checkpoint_blocks and not any(block.checkpoint for block in residual_blocks(module).values()):
        raise ModelError(
            f"model.checkpoint_blocks=true has no effect on {name}: build its blocks as "
            "fnostab.ptychography.models.ResidualBlock.of(config, ...), or leave it false"
        )
    return module


def check_generator(generator: nn.Module, N: int) -> None:
    """Send a tiny batch through a network to see that it keeps the contract; changes nothing in it.

    Raises:
        ModelError: the forward pass fails, or does not give (B, 1, N, N) complex64.
    """
    shape = (2, 1, N, N)
    device = next((parameter.device for parameter in generator.parameters()), torch.device("cpu"))
    training = [module for module in generator.modules() if module.training]
    generator.eval()  # so that running statistics and random streams stay as they are
    try:
        with torch.no_grad():
            patch = generator(torch.ones(shape, device=device))
    except Exception as error:
        raise ModelError(f"{type(generator).__name__} fails on an input of {shape}: {_one_line(error)}") from error
    finally:
        for module in training:
            module.training = True
    got = f"{tuple(patch.shape)} {_dtype(patch)}" if isinstance(patch, torch.Tensor) else type(patch).__name__
    expected = f"{shape} complex64"
    if got != expected:
        raise ModelError(f"{type(generator).__name__}: expected an output of {expected}, got {got}")


def _import_builder(name: str) -> Builder:
    module_name, _, attribute = name.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ModelError(
            f"model.architecture={name}: can't import {module_name} ({_one_line(error)}); "
            "install it, or put its folder on PYTHONPATH"
        ) from error
    builder = getattr(module, attribute, None)
    if not callable(builder):
        problem = "is not callable" if hasattr(module, attribute) else "does not exist"
        raise ModelError(
            f"model.architecture={name}: {attribute} {problem} in {module_name}; "
            "expected a class or function that takes a ModelConfig"
        )
    return builder


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
