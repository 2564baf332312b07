"""Measures of a layer's output, as 0-d tensors on its device to avoid synchronisation."""

import torch
from torch import Tensor

DEAD_SPREAD = 1e-6  # of a unit, over batch and pixels, relative to 1 + |mean|


def real_values(output: Tensor) -> Tensor:
    """Detach ``output`` and convert it to float32; complex values get a last axis of real and imaginary parts."""
    output = output.detach()
    return (torch.view_as_real(output) if output.is_complex() else output).float()


def rms(values: Tensor) -> Tensor:
    """Root mean square of all values, a 0-d tensor."""
    return values.square().mean().sqrt()


def dead_share(values: Tensor) -> Tensor | None:
    """Share of dead units: channels that are constant over the whole batch and all pixels.

    A channel counts as dead if its standard deviation is at most 1e-6 (1 + |mean|): it carries no information
    about the input. A channel of a GELU is dead if all its inputs lie below about -5, where its output and its
    gradient vanish.

    Args:
        values: (B, channels, ...), real.

    Returns:
        A 0-d tensor; None without channels.
    """
    if values.ndim < 2:
        return None
    std, mean = torch.std_mean(values.transpose(0, 1).flatten(1), dim=1, correction=0)
    return (std <= DEAD_SPREAD * (1 + mean.abs())).float().mean()


def low_frequency_share(values: Tensor) -> Tensor | None:
    """Share of the power that lies at low frequencies: up to a quarter of Nyquist along both axes.

    Each image's mean is removed first; otherwise a drift of the mean would count as low frequency. The first
    frequency always counts as low, even below 8 pixels, where it exceeds a quarter. White noise has a share of 0.07
    on 64 x 64 pixels, 0.13 on 8 x 8 and 0.53 on 4 x 4.

    Args:
        values: images (B, channels, H, W), real.

    Returns:
        A 0-d tensor, NaN if all images are constant; None for images smaller than 4 pixels a side, or no images.
    """
    if values.ndim != 4 or min(values.shape[-2:]) < 4:
        return None
    rows, columns = (max(1, side // 8) for side in values.shape[-2:])
    varying = values - values.mean(dim=(-2, -1), keepdim=True)
    half = torch.fft.rfft(varying, norm="ortho")[..., : columns + 1]
    spectrum = torch.fft.fft(half, dim=-2, norm="ortho")
    power = torch.cat([spectrum[..., : rows + 1, :], spectrum[..., -rows:, :]], dim=-2).abs().square()
    low = power[..., 0].sum() + 2 * power[..., 1:].sum()  # the half spectrum omits one of each pair
    return low / varying.square().sum()
