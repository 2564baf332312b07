"""The number format of the real convolutions: ``execution.convolution_precision``.

Spectral convolutions, norms, physics, losses, weights and optimisers are float32 whatever it is.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from fnostab.errors import LaunchError

__all__ = ["convolutions_in", "tf32_only_if"]


def convolutions_in(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Context of a network's forward pass: under ``bfloat16`` its convolutions round their inputs and outputs."""
    if precision != "bfloat16" or device.type == "meta":  # there only sizes are counted
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


@contextmanager
def tf32_only_if(precision: str, device: torch.device) -> Iterator[None]:
    """Context of a whole training: convolutions on a GPU use TF32 only if asked for (torch's default is to use it).

    Raises:
        LaunchError: TF32 is asked for on a device that has none.
    """
    if precision == "tf32" and device.type != "cuda":
        raise LaunchError(f"execution.convolution_precision=tf32 has no effect on a {device.type}: use float32")
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
