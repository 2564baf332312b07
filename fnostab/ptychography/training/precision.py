"""Precision of the real convolutions, ``execution.convolution_precision``.

Spectral convolutions, norms, physics, losses, weights and optimisers always use float32.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from fnostab.errors import LaunchError

__all__ = ["convolutions_in", "tf32_only_if"]


def convolutions_in(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Context of a network's forward pass, with bfloat16 autocast for ``bfloat16``."""
    if precision != "bfloat16" or device.type == "meta":  # the meta device is only used to measure sizes
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


@contextmanager
def tf32_only_if(precision: str, device: torch.device) -> Iterator[None]:
    """Context of a training, in which GPU convolutions use TF32, torch's default, only for ``tf32``.

    Raises:
        LaunchError: TF32 is configured for a CPU.
    """
    if precision == "tf32" and device.type != "cuda":
        raise LaunchError(f"execution.convolution_precision=tf32 has no effect on a {device.type}: use float32")
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
