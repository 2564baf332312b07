"""Gradient clipping: by global norm, by value, or adaptively by unit (AGC).

AGC is algorithm 2 of Brock et al. 2021, "High-Performance Large-Scale Image Recognition Without
Normalization"; reference implementation: github.com/google-deepmind/deepmind-research, nfnets/agc_optax.py.
A unit is what feeds one output: a row of a linear layer, a filter of a convolution. Its norms are taken
over all axes but one, which depends on the kind of layer, so `mark_units_` notes it on the parameters:

    unit_dim     the axis that counts units, 0 if absent; parameters of fewer than two axes are one unit
    agc_exempt   True leaves the parameter out of AGC

All functions change gradients in place and return the clipped share as a 0-d tensor on the gradients'
device, without waiting for that device. Parameters without a gradient are skipped; complex gradients
count by their modulus, or by value as pairs of reals. No clipping stops a NaN or
infinite gradient: one NaN makes the whole gradient NaN under ``norm``, and that of its unit under ``agc``.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from fnostab.errors import ConfigError, ModelError
from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.user_parts import is_own, make_own

__all__ = ["Clipper", "adaptive_gradient_clip_", "clip_by_norm_", "clip_by_value_", "make_clipper", "mark_units_"]

Parameters = Tensor | Iterable[Tensor]
Clipper = Callable[[Parameters], Tensor]


def mark_units_(module: nn.Module, exempt: str = "") -> None:
    """Note on each parameter which axis counts its units, and exempt the final layer from AGC.

    The axis is 1 for transposed convolutions, the layer's class attribute ``weight_unit_dim`` where it
    has one, and 0 otherwise. The final layer is the module registered last among those that own
    parameters. Deep copies and loaded networks lose the marks: call this when training starts.

    Args:
        module: the network.
        exempt: name of a part of it that AGC is to leave out as well; empty for none.

    Raises:
        ModelError: it has no part of that name.
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
    """Make the function that clips the gradients of parameters and returns the clipped share.

    One of your own that remembers earlier steps has ``state_dict`` and ``load_state_dict``, which a trial that goes on
    or is replayed needs.

    Raises:
        ModelError: one of your own can't be made.
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
        eps: least weight norm, so that units that start at zero can move.

    Returns:
        Share of units that were clipped, exempt parameters not counted; a 0-d tensor.

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
        # Then all units of all parameters at once: few small operations, however deep the network.
        norm = torch.cat([n.flatten() for n in norms])
        limit = clip_factor * torch.cat([n.flatten() for n in weight_norms]).clamp(min=eps)
        scales = (limit / norm).clamp(max=1).split([n.numel() for n in norms])
        for (_, gradient), scale, shaped in zip(pairs, scales, norms, strict=True):
            gradient.mul_(scale.view_as(shaped))
        return (norm > limit).float().mean()


def clip_by_norm_(parameters: Parameters, value: float) -> Tensor:
    """Scale all gradients so that their global norm is at most ``value``; return 1 if that changed it and 0 if not."""
    return (clip_grad_norm_(parameters, value) > value).float()


def clip_by_value_(parameters: Parameters, value: float) -> Tensor:
    """Clip each element to at most ``value`` either way; return the share of elements that changed."""
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
    """Norms over all axes but the one that counts units, kept as axes of length 1."""
    if values.ndim < 2:
        return torch.linalg.vector_norm(values)
    unit_dim = getattr(parameter, "unit_dim", 0)
    before, after = tuple(range(unit_dim)), tuple(range(unit_dim + 1, values.ndim))
    if after:
        values = torch.linalg.vector_norm(values, dim=after, keepdim=True)
    if before:  # by squares: a norm over leading axes is six times slower on a CPU
        values = (values.abs() if values.is_complex() else values).square().sum(dim=before, keepdim=True).sqrt()
    return values
