"""Losses between predicted and measured diffraction, normalised by the mean of the data.

With this normalisation ratios and margins have the same meaning for every data set. A raw Poisson likelihood is not
suitable: it is about -2.7e6 at 2.4e5 counts per pixel, most of it independent of the prediction.
"""

from collections.abc import Callable

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from fnostab.ptychography.physics.far_field import far_field

RATE_FLOOR = 1e-3  # counts per pixel; keeps the logarithm and its gradient finite at zero amplitude


def mae_loss(predicted_amplitude: Tensor, measured_amplitude: Tensor, mean_amplitude: float) -> Tensor:
    """Mean absolute error of the amplitude, relative to the mean measured amplitude.

    Args:
        predicted_amplitude: any shape.
        measured_amplitude: same shape.
        mean_amplitude: mean amplitude of the training data.

    Returns:
        A scalar.
    """
    return (predicted_amplitude - measured_amplitude).abs().mean() / mean_amplitude


def poisson_loss(
    predicted_amplitude: Tensor, measured_amplitude: Tensor, photon_scale: float, mean_count: float
) -> Tensor:
    """Mean Poisson deviance of the counts, relative to the mean count.

    The deviance 2 (rate - n + n log(n / rate)) is twice the negative log-likelihood up to terms independent of the
    rate, and 0 for a perfect prediction. It is computed as 2 n (x - log1p(x)) with x = rate / n - 1, which avoids
    cancellation near a perfect prediction, and in float64, since a rate may be as small as 1e-11 of the count.

    Args:
        predicted_amplitude: square root of the predicted intensity, any shape.
        measured_amplitude: sqrt(counts / photon_scale), same shape.
        photon_scale: photons per unit of intensity.
        mean_count: mean photons per pixel of the training data.

    Returns:
        A scalar of the prediction's dtype. Its gradient is finite at zero amplitude.
    """
    rate = photon_scale * predicted_amplitude.double().square()
    counts = photon_scale * measured_amplitude.double().square()
    dark = counts == 0
    counts = torch.where(dark, 1.0, counts)  # unused there, but 0 / 0 would make the gradient NaN
    x = (rate.clamp(min=RATE_FLOOR) - counts) / counts
    deviance = 2 * torch.where(dark, rate, counts * (x - torch.log1p(x)))
    return (deviance.mean() / mean_count).to(predicted_amplitude.dtype)


def constant_output_loss(loss: Callable[[Tensor, Tensor], Tensor], probe: Tensor, amplitudes: Tensor) -> float:
    """Smallest loss with the same complex constant as every object patch: the best loss of a collapsed network.

    Only the constant's modulus matters.

    Args:
        loss: function of (predicted, measured) amplitudes, each of shape (n, 1, N, N); convex in the modulus.
        probe: complex, shape (N, N).
        amplitudes: measured amplitudes, shape (n, 1, N, N).
    """
    empty = far_field(probe).abs()  # amplitude of a pattern without an object
    # The modulus that conserves the energy; the best one is of the same order.
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
