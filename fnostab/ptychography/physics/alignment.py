"""Align a reconstruction with the truth before comparing them, by removing what diffraction cannot determine.

A reconstruction is determined only up to a global phase and, since the probe's tilt is unknown, up to a phase ramp.
Its mean amplitude is matched too.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fnostab.errors import DataError

FLAT = 1e-6  # deviations below this share of the mean amplitude, or of a radian, count as rounding errors
Image = NDArray[np.float64]
Field = NDArray[np.complex128]


@dataclass(frozen=True)
class Aligned:
    """A reconstruction and the truth, comparable pixel by pixel. All arrays are float64 of shape (H, W).

    Attributes:
        amplitude: amplitude of the reconstruction, scaled to the truth's mean.
        phase: phase of the reconstruction in radians, with global phase and phase plane matched to the truth, and
            unwrapped to within pi of the true phase.
        true_amplitude: amplitude of the truth.
        true_phase: phase of the truth in radians.
    """

    amplitude: Image
    phase: Image
    true_amplitude: Image
    true_phase: Image

    @cached_property
    def fields(self) -> tuple[Field, Field]:
        """Reconstruction and truth as complex fields of shape (H, W), both without the truth's phase plane.

        A reconstruction that is constant up to a phase plane thus becomes constant.
        """
        true = self.true_amplitude * np.exp(1j * self.true_phase)
        flat = _flatten(true)
        ramp = np.exp(1j * (np.angle(flat) - self.true_phase))
        return self.amplitude * np.exp(1j * self.phase) * ramp, flat


def align(prediction: Tensor, truth: Tensor) -> Aligned:
    """Match the mean amplitude, then remove the global phase and a plane fitted to the phase difference.

    A prediction with any non-finite value is treated as zero everywhere. The phase of zero pixels is that of the
    constant 1.

    Args:
        prediction: complex reconstruction, shape (H, W).
        truth: complex true object, same shape.

    Raises:
        DataError: the shapes differ or are not 2-D.
    """
    if prediction.shape != truth.shape or truth.ndim != 2:
        raise DataError(
            f"can't compare shapes {tuple(prediction.shape)} and {tuple(truth.shape)}: expected equal (H, W)"
        )
    predicted, true = _field(prediction), _field(truth)
    if not np.isfinite(predicted).all():
        predicted = np.zeros_like(predicted)
    mean = np.abs(predicted).mean()
    if mean > 0:
        predicted *= np.abs(true).mean() / mean

    difference = _flatten(np.where(predicted == 0, 1, predicted) * true.conj())
    true_phase = np.angle(true)
    return Aligned(np.abs(predicted), true_phase + np.angle(difference), np.abs(true), true_phase)


def without_ramp(image: Tensor) -> Tensor:
    """Remove the global phase and the phase ramp of ``image``, complex of shape (H, W).

    The result is the same for an image times any global phase and ramp. Pixels of 0 count as having the mean phase. An
    image with any non-finite value is returned as it is.
    """
    if not image.isfinite().all():
        return image
    return torch.from_numpy(_flatten(_field(image))).to(image)


def without_plane(phase: Image) -> Image:
    """Subtract the least-squares plane from ``phase`` of shape (H, W)."""
    height, width = phase.shape
    rows, columns = np.indices(phase.shape) - np.array([height - 1, width - 1]).reshape(2, 1, 1) / 2
    # On a full, centred grid the three terms of a plane are orthogonal.
    slopes = [(phase * axis).sum() / max((axis**2).sum(), 1) * axis for axis in (rows, columns)]
    return np.asarray(phase - phase.mean() - slopes[0] - slopes[1])


def _field(image: Tensor) -> Field:
    return image.detach().cpu().resolve_conj().resolve_neg().numpy().astype(np.complex128)


def _flatten(field: Field) -> Field:
    """Remove the global phase and the phase plane of a field."""
    # A steep ramp wraps. Products of neighbouring pixels do not wrap, and give initial slopes.
    rows, columns = np.indices(field.shape)
    down = np.angle((field[1:] * field[:-1].conj()).sum())
    across = np.angle((field[:, 1:] * field[:, :-1].conj()).sum())
    field = field * np.exp(-1j * (down * rows + across * columns))
    field = field * np.exp(-1j * np.angle(field.sum()))
    for _ in range(2):  # the second fit includes pixels that the first one unwrapped
        phase = np.where(field == 0, 0, np.angle(field))  # a signed zero has an angle of 0 or pi
        field = np.abs(field) * np.exp(1j * without_plane(phase))
    return field
