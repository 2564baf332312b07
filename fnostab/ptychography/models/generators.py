"""Build the network that ``model.architecture`` names, and check its contract.

A generator is built by a callable that takes a `ModelConfig` and returns an ``nn.Module``. The module maps measured
amplitudes (B, 1, N, N) float32 to object patches (B, 1, N, N) complex64.
"""

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from fnostab.errors import ModelError
from fnostab.ptychography.models.blocks import residual_blocks
from fnostab.ptychography.models.fno import FNO
from fnostab.ptychography.models.hybrid import HybridUNO
from fnostab.ptychography.settings import ModelConfig
from fnostab.ptychography.user_parts import is_own, make_own, one_line_with_place


def build_generator(config: ModelConfig) -> nn.Module:
    """Build the network that ``config.architecture`` names: a built-in one, or a custom ``package.module.Class``.

    A custom network is called with ``config``; its own settings are in ``config.options``.

    Raises:
        ModelError: the network or a part of it can't be imported or built or is not an ``nn.Module``, or
            ``config.checkpoint_blocks`` is set and it has no blocks to checkpoint; a network with lazy layers breaks
            the contract that `check_generator` checks.
    """
    if is_own(config.architecture):
        module = make_own("model.architecture", config.architecture, nn.Module, config)
    else:  # the hybrids are one network with other parts, see `settings.ARCHITECTURES` and `settings.PRESETS`
        module = FNO(config) if config.architecture == "fno" else HybridUNO(config)
    if config.checkpoint_blocks and not any(block.checkpoint for block in residual_blocks(module).values()):
        raise ModelError(
            f"model.checkpoint_blocks=true has no effect on {', '.join(config.own.values())}: build its blocks as "
            "fnostab.ptychography.models.ResidualBlock(config, ...), or leave it false"
        )
    if any(is_lazy(parameter) for parameter in module.parameters()):  # `torch.nn.LazyConv2d` and the like
        check_generator(module, config.N)  # a forward pass gives them their shapes
    return module


def check_generator(generator: nn.Module, N: int) -> None:
    """Check the contract of a network with a tiny batch, without changing its state.

    Raises:
        ModelError: the forward pass fails, or its output is not (B, 1, N, N) complex64.
    """
    shape = (2, 1, N, N)
    device = next((parameter.device for parameter in generator.parameters()), torch.device("cpu"))
    training = [module for module in generator.modules() if module.training]
    generator.eval()  # leaves running statistics and random streams unchanged
    try:
        with torch.no_grad():
            patch = generator(torch.ones(shape, device=device))
    except (Exception, SystemExit) as error:
        why = one_line_with_place(error, type(generator).__module__)
        raise ModelError(f"{type(generator).__name__} fails on an input of {shape}: {why}") from error
    finally:
        for module in training:
            module.training = True
    got = f"{tuple(patch.shape)} {_dtype(patch)}" if isinstance(patch, torch.Tensor) else type(patch).__name__
    expected = f"{shape} complex64"
    if got != expected:
        raise ModelError(f"{type(generator).__name__}: expected an output of {expected}, got {got}")


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
