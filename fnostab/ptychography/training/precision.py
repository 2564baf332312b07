"""Floating-point arithmetic of a training: precision of the real convolutions, and subnormal numbers.

Spectral convolutions, norms, physics, losses, weights and optimisers always use float32.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from fnostab.errors import LaunchError


def convolutions_in(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Context of a network's forward pass, with bfloat16 autocast for ``bfloat16``."""
    if precision != "bfloat16" or device.type == "meta":  # the meta device is only used to measure sizes
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


@contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Context of a training and its predictions: TF32 only if ``precision`` is ``tf32``, no subnormal numbers on a CPU.

    GELU's derivative at very negative inputs leaves numbers below 1.2e-38 in the gradients of a trained network, with
    which a CPU calculates many times more slowly than with zeros. It holds for the calling thread and threads
    that it starts; the former state is restored at the end.

    Raises:
        LaunchError: TF32 is configured for a CPU.
    """
    if precision == "tf32" and device.type != "cuda":
        raise LaunchError(f"execution.convolution_precision=tf32 has no effect on a {device.type}: use float32")
    tf32, as_zero = torch.backends.cudnn.allow_tf32, not float(torch.tensor([1e-38]) * 0.5)
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
        torch.set_flush_denormal(as_zero)
