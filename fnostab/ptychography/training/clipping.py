"""Gradient clipping: by global norm, by value, or adaptively by unit (AGC).

AGC is algorithm 2 of Brock et al. 2021, "High-Performance Large-Scale Image Recognition Without Normalization";
reference implementation: github.com/google-deepmind/deepmind-research, nfnets/agc_optax.py. A unit comprises the
weights of one output: a row of a linear layer, or a filter of a convolution. Its norm is over all axes but one, which
depends on the kind of layer. `mark_units_` sets it as an attribute of the parameters:

    unit_dim     the axis of units, 0 if absent; a parameter with fewer than two axes is one unit
    agc_exempt   True excludes the parameter from AGC

All functions modify gradients in place and return the clipped share as a 0-d tensor on the gradients' device, without
synchronising with it. Parameters without a gradient are skipped. Complex gradients are clipped by their modulus, by
value as pairs of reals. Clipping does not remove NaN or infinite gradients: one NaN makes all gradients NaN with
``norm``, and the gradient of its unit with ``agc``.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from fnostab.errors import ConfigError, ModelError
from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.user_parts import is_own, make_own

Parameters = Tensor | Iterable[Tensor]
Clipper = Callable[[Parameters], Tensor]


def mark_units_(module: nn.Module, exempt: str = "") -> None:
    """Mark the axis of units of each parameter, and exempt the final layer from AGC.

    The axis is the layer's class attribute ``weight_unit_dim`` if it has one, otherwise 1 for transposed convolutions
    and 0 for all others. The final layer is the last registered module with parameters. Deep copies and loaded
    networks lose the marks, so call this when training starts.

    Args:
        module: the network.
        exempt: name of another part to exempt from AGC; empty for none.

    Raises:
        ModelError: the network has no part of that name.
    """
    try:
        also = {id(parameter) for parameter in module.get_submodule(exempt).parameters()} if exempt else set()
    except AttributeError:
        raise ModelError(
            f"execution.agc_exempt={exempt}: {type(module).__name__} has no part of that name; set head"
        ) from None
    layers = [layer for layer in module.modules() if any(True for _ in layer.parameters(recurse=False))]
    for layer in layers:
        transposed = isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
        for parameter in layer.parameters(recurse=False):
            parameter.unit_dim = getattr(layer, "weight_unit_dim", int(transposed))  # type: ignore[attr-defined]
            parameter.agc_exempt = layer is layers[-1] or id(parameter) in also  # type: ignore[attr-defined]


def make_clipper(config: TrialConfig) -> Clipper:
    """Build the function that clips the gradients of parameters and returns the clipped share.

    A custom function with state must have ``state_dict`` and ``load_state_dict``, which resuming and replaying need.

    Raises:
        ModelError: a custom function can't be built.
    """
    execution = config.execution
    if is_own(execution.gradient_clip_algorithm):
        return make_own("execution.gradient_clip_algorithm", execution.gradient_clip_algorithm, Callable, config)
    clip, value = ALGORITHMS[execution.gradient_clip_algorithm], execution.gradient_clip_val
    assert value is not None
    return lambda parameters: clip(parameters, value)


def adaptive_gradient_clip_(parameters: Parameters, clip_factor: float, eps: float = 1e-3) -> Tensor:
    """Scale down each unit's gradient G where ||G|| > clip_factor * max(||W||, eps).

    Args:
        parameters: one tensor, or several on one device, marked by `mark_units_`.
        clip_factor: lambda of the paper, typically 0.01 to 0.1.
        eps: minimum weight norm, so that units initialised with zero can change.

    Returns:
        Share of clipped units, without exempt parameters; a 0-d tensor.

    Raises:
        ConfigError: ``clip_factor`` is not positive.
    """
    if not clip_factor > 0:
        raise ConfigError(f"clip_factor={clip_factor} must be positive")
    pairs = [(p, g) for p, g in _with_gradient(parameters) if not getattr(p, "agc_exempt", False)]
    if not pairs:
        return torch.zeros(())
    with torch.no_grad():
        weight_norms = [_unit_norms(p, p) for p, _ in pairs]
        norms = [_unit_norms(g, p) for p, g in pairs]
        # All units of all parameters at once: the number of operations does not grow with depth.
        norm = torch.cat([n.flatten() for n in norms])
        limit = clip_factor * torch.cat([n.flatten() for n in weight_norms]).clamp(min=eps)
        scales = (limit / norm).clamp(max=1).split([n.numel() for n in norms])
        for (_, gradient), scale, shaped in zip(pairs, scales, norms, strict=True):
            gradient.mul_(scale.view_as(shaped))
        return (norm > limit).float().mean()


def clip_by_norm_(parameters: Parameters, value: float) -> Tensor:
    """Scale all gradients so that their global norm is at most ``value``; return 1 if that changed them, else 0."""
    return (clip_grad_norm_(parameters, value) > value).float()


def clip_by_value_(parameters: Parameters, value: float) -> Tensor:
    """Clip each element to [-``value``, ``value``]; return the share of clipped elements."""
    gradients = [g for _, g in _with_gradient(parameters)]
    if not gradients:
        return torch.zeros(())
    with torch.no_grad():
        reals = [part for g in gradients for part in ((g.real, g.imag) if g.is_complex() else (g,))]
        clipped = torch.stack([torch.count_nonzero(g.abs() > value) for g in reals]).sum()
        for g in reals:
            g.clamp_(-value, value)
        return clipped / sum(g.numel() for g in reals)


ALGORITHMS: dict[str, Callable[[Parameters, float], Tensor]] = {
    "norm": clip_by_norm_,
    "value": clip_by_value_,
    "agc": adaptive_gradient_clip_,
}


def _with_gradient(parameters: Parameters) -> list[tuple[Tensor, Tensor]]:
    parameters = [parameters] if isinstance(parameters, Tensor) else parameters
    return [(p, p.grad) for p in parameters if p.grad is not None]


def _unit_norms(values: Tensor, parameter: Tensor) -> Tensor:
    """Norms over all axes but that of units, which are kept with length 1."""
    if values.ndim < 2:
        return torch.linalg.vector_norm(values)
    unit_dim = getattr(parameter, "unit_dim", 0)
    before, after = tuple(range(unit_dim)), tuple(range(unit_dim + 1, values.ndim))
    if after:
        values = torch.linalg.vector_norm(values, dim=after, keepdim=True)
    if before:  # explicit squares: vector_norm over leading axes is six times slower on a CPU
        values = (values.abs() if values.is_complex() else values).square().sum(dim=before, keepdim=True).sqrt()
    return values
