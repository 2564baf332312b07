"""The number format of the real convolutions: ``execution.convolution_precision``.

Spectral convolutions, norms, physics, losses, weights and optimisers are float32 whatever it is.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from fnostab.errors import LaunchError

__all__ = ["convolutions_in", "tf32_only_if"]


def convolutions_in(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """For the forward pass of a network: under ``bfloat16`` its convolutions round what they take and give."""
    if precision != "bfloat16" or device.type == "meta":  # there only sizes are counted
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


@contextmanager
def tf32_only_if(precision: str, device: torch.device) -> Iterator[None]:
    """For a whole training: convolutions on a GPU use TF32 if that is asked for. Torch would use it by default.

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
