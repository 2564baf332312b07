"""Losses between predicted and measured diffraction, divided by the data's own size.

The division makes ratios and margins mean the same on every data set. A raw Poisson likelihood would
not do: it is near -2.7e6 at 2.4e5 counts a pixel, and most of it does not depend on the prediction.
"""

from collections.abc import Callable

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from fnostab.ptychography.physics.far_field import far_field

__all__ = ["constant_output_loss", "mae_loss", "poisson_loss"]

RATE_FLOOR = 1e-3  # counts; keeps the logarithm and its gradient finite at zero amplitude


def mae_loss(predicted_amplitude: Tensor, measured_amplitude: Tensor, mean_amplitude: float) -> Tensor:
    """Mean absolute error of the amplitude, as a share of the mean measured amplitude.

    Args:
        predicted_amplitude: any shape.
        measured_amplitude: same shape.
        mean_amplitude: of the training data.

    Returns:
        A scalar.
    """
    return (predicted_amplitude - measured_amplitude).abs().mean() / mean_amplitude


def poisson_loss(
    predicted_amplitude: Tensor, measured_amplitude: Tensor, photon_scale: float, mean_count: float
) -> Tensor:
    """Mean Poisson deviance of the counts, as a share of the mean count.

    The deviance 2 (rate - n + n log(n / rate)) is the negative log-likelihood but for terms without the
    rate, and is 0 for a perfect prediction. It is computed as 2 n (x - log1p(x)) with x = rate / n - 1,
    which keeps its digits near that, and in float64, since a rate may be 1e-11 of the count.

    Args:
        predicted_amplitude: square root of the predicted intensity, any shape.
        measured_amplitude: sqrt(counts / photon_scale), same shape.
        photon_scale: photons per unit of intensity.
        mean_count: per pixel, of the training data.

    Returns:
        A scalar of the prediction's dtype. Its gradient is finite at zero amplitude.
    """
    rate = photon_scale * predicted_amplitude.double().square()
    counts = photon_scale * measured_amplitude.double().square()
    dark = counts == 0
    counts = torch.where(dark, 1.0, counts)  # unused there, but 0 / 0 would poison the gradient
    x = (rate.clamp(min=RATE_FLOOR) - counts) / counts
    deviance = 2 * torch.where(dark, rate, counts * (x - torch.log1p(x)))
    return (deviance.mean() / mean_count).to(predicted_amplitude.dtype)


def constant_output_loss(loss: Callable[[Tensor, Tensor], Tensor], probe: Tensor, amplitudes: Tensor) -> float:
    """Smallest loss that one complex constant in place of every object patch can reach.

    A network that has collapsed does no better. Only the constant's modulus matters.

    Args:
        loss: of (predicted, measured) amplitudes, each of shape (n, 1, N, N); convex in the modulus.
        probe: complex, shape (N, N).
        amplitudes: measured, shape (n, 1, N, N).
    """
    empty = far_field(probe).abs()  # amplitude of a pattern without an object
    # The modulus that keeps the energy; the best one is of the same size.
    typical = float(((amplitudes.double() ** 2).mean() / (empty.double() ** 2).mean()).sqrt())
    if typical == 0:
        return float(loss(torch.zeros_like(amplitudes), amplitudes))
    best = minimize_scalar(
        lambda modulus: float(loss((modulus * empty).expand_as(amplitudes), amplitudes)),
        bounds=(0, 4 * typical),
        method="bounded",
        options={"xatol": 1e-5 * typical},
    )
    return float(best.fun)
