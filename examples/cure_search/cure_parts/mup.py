"""Adam with muP learning rates, which decrease with the input width of a layer.

Adam changes every weight by about the learning rate, regardless of the gradient's size. The changes of the n weights of
one output are aligned with their inputs, so the output changes n times as much as by one weight: at the same rate, wide
layers take larger steps than narrow ones. Dividing a layer's rate by n compensates for this: Yang et al. 2022, "Tensor
Programs V: Tuning Large Neural Networks via Zero-Shot Hyperparameter Transfer", table 3, row for Adam. Reference
implementation: github.com/microsoft/mup, optim.py.

Differences from the paper:

- A network that doubles its channels at each level has layers of different widths, so the rule is applied within one
  network. Layers with up to ``training.options.base_width`` input channels (default ``model.hidden_channels``) keep the
  rate, wider ones get base / n of it; no layer gets more. The first layer, which reads the image, and the head, whose
  rate decreases with its inputs, are thus as in the paper.
- n counts channels. Kernel pixels and Fourier modes add to the sum too, but do not grow with the width.
- The initialisation is unchanged. In the paper the head's initial weights decrease with its width.
"""

from typing import Any

import torch
from torch import nn

from fnostab.errors import ModelError
from fnostab.ptychography.models import SpectralConv2d
from fnostab.ptychography.models.published_spectral import PublishedSpectralConv2d
from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.training.module import can_be_fused

PLAIN = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def adam(network: nn.Module, config: TrialConfig) -> torch.optim.Adam:
    """Build Adam with these learning rates, fused unless a weight is complex."""
    groups = parameter_groups(network, config)
    fused = can_be_fused(parameter for group in groups for parameter in group["params"])
    return torch.optim.Adam(groups, betas=(0.9, config.training.adam_beta2), fused=fused)


def parameter_groups(network: nn.Module, config: TrialConfig) -> list[dict[str, Any]]:
    """Group the trainable parameters by learning rate, for an optimiser.

    The first group has the configured rate; the others follow in order of decreasing rate.

    Raises:
        ModelError: the axis of input channels of a weight is not known.
    """
    training = config.training
    base = int(training.options.get("base_width") or config.model.hidden_channels)
    of_share: dict[float, list[nn.Parameter]] = {1.0: []}
    widths = _widths(network)
    for parameter in network.parameters():
        if parameter.requires_grad:
            share = min(1.0, base / widths.get(parameter, 1))
            of_share.setdefault(share, []).append(parameter)
    return [
        {"params": parameters, "lr": training.learning_rate * share, "weight_decay": training.weight_decay}
        for share, parameters in sorted(of_share.items(), reverse=True)
    ]


def _widths(network: nn.Module) -> dict[nn.Parameter, int]:
    """Number of input channels of each parameter; 1 for biases, gains and other vectors."""
    widths: dict[nn.Parameter, int] = {}
    for path, layer in network.named_modules():
        for name, parameter in layer.named_parameters(recurse=False):
            widths.setdefault(parameter, _width(layer, parameter, f"{path}.{name}" if path else name))
    return widths


def _width(layer: nn.Module, parameter: nn.Parameter, name: str) -> int:
    if parameter.ndim < 2:
        return 1
    if isinstance(layer, SpectralConv2d):
        return layer.in_channels
    if isinstance(layer, PublishedSpectralConv2d):
        return len(layer.weight)
    if hasattr(layer, "weight_input_dim"):
        axis: Any = layer.weight_input_dim
        return 1 if axis is None else parameter.shape[axis]
    if isinstance(layer, PLAIN):
        return parameter.shape[1]
    if isinstance(layer, TRANSPOSED):
        return parameter.shape[0] // layer.groups
    raise ModelError(
        f"mup: which axis of {name}, {tuple(parameter.shape)}, counts the channels that its {type(layer).__name__} "
        "reads? Give the layer an attribute weight_input_dim, the axis or None for a gain"
    )
