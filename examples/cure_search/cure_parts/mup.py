"""Learning rates by layer: muP's, which fall with the width of what a layer reads.

Adam moves every weight by about the learning rate, whatever the gradient's size. The moves of the n weights that feed
one output line up with their inputs, so that the output moves n times as far as by one of them: wide layers take larger
steps than narrow ones at the same rate. Dividing the rate of a layer by n makes them alike: Yang et al. 2022, "Tensor
Programs V: Tuning Large Neural Networks via Zero-Shot Hyperparameter Transfer", table 3, of which this is the row for
Adam. Reference implementation: github.com/microsoft/mup, optim.py.

What is this project's own:

- Widths differ within a network that doubles its channels at each level, so the rule is put to use inside one network:
  layers that read up to ``training.options.base_width`` channels (``model.hidden_channels`` if left out) keep the rate,
  wider ones get base / n of it. None gets more. The first layer, which reads the image, is thus as the paper has it; so
  is the head, whose rate falls with its inputs.
- n counts channels. Pixels of a kernel and Fourier modes add to the sum too, but do not grow with the width.
- Weights start as they do anyway, while the paper starts the head's at a smaller size the wider it is.
"""

from typing import Any

import torch
from torch import nn

from fnostab.errors import ModelError
from fnostab.ptychography.models import SpectralConv2d
from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.training.module import can_be_fused

PLAIN = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def adam(network: nn.Module, config: TrialConfig) -> torch.optim.Adam:
    """Adam with these rates, fused unless a weight is complex."""
    groups = parameter_groups(network, config)
    fused = can_be_fused(parameter for group in groups for parameter in group["params"])
    return torch.optim.Adam(groups, betas=(0.9, config.training.adam_beta2), fused=fused)


def parameter_groups(network: nn.Module, config: TrialConfig) -> list[dict[str, Any]]:
    """The trainable parameters as an optimiser takes them, in groups of one learning rate each.

    The first group has the rate of the configuration, the others follow by falling rate.

    Raises:
        ModelError: of a weight it is not known which axis counts what it reads.
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
    """Number of channels that one output reads through each parameter; 1 for biases, gains and other vectors."""
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
