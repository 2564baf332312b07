"""Score a reconstruction, beside the score of a constant.

A constant reconstruction is the typical failure, and SSIM can be kind to it: against a phase that is
zero everywhere it is perfect, and an amplitude SSIM near 0.3 is common. So a reconstruction that
hardly varies gets an SSIM of 0, and the constant's own (`constant_scores`) is meant to stand beside
every other.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import uniform_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from fnostab.errors import DataError
from fnostab.ptychography.physics.alignment import FLAT, Aligned, Field, Image, align, without_plane

__all__ = [
    "PublishedScores",
    "Scores",
    "constant_scores",
    "detail_correlation",
    "evaluate",
    "field_spread",
    "patch_variation",
    "published_scores",
]

LEAST_SPREAD = 0.1  # of the truth's: what varies less counts as constant
SSIM_WINDOW = 7  # pixels, scikit-image's default
POWER_STEPS = 5
MOST_DECIBELS = -20 * np.log10(FLAT)  # of a PSNR: what is left of an error is rounding


@dataclass(frozen=True)
class Scores:
    """Errors and similarities of a reconstruction; those of the phase are None if it was not asked for.

    Attributes:
        mae_amp: mean absolute error of the amplitude, in units of the truth's.
        ssim_amp: structural similarity of the amplitude (Wang et al. 2004), at most 1.
        mae_phase: mean absolute error of the phase, in radians.
        ssim_phase: structural similarity of the phase.
    """

    mae_amp: float
    ssim_amp: float
    mae_phase: float | None = None
    ssim_phase: float | None = None


@dataclass(frozen=True)
class PublishedScores:
    """Scores that the published evaluation has too; those of the phase may be None.

    Only ``ssim_phase`` can be compared with its numbers. Its PSNR takes 255 for the peak, and it smooths its curve of
    the Fourier ring correlation: docs/depth.md.

    Attributes:
        psnr_amp: peak signal-to-noise ratio of the amplitude, in dB, at most 120; the peak is the truth's range. 0
            where the truth does not vary.
        psnr_phase: the same of the phase.
        ssim_phase: similarity of the phases without their planes, from -pi to pi on a scale from 0 to 1: kind to a
            constant, and to any phase that varies little on that scale.
    """

    psnr_amp: float
    psnr_phase: float | None = None
    ssim_phase: float | None = None


def evaluate(pair: Aligned, *, set_phi: bool, least_spread: float = LEAST_SPREAD) -> Scores:
    """Compare a stitched prediction with the truth.

    The SSIM of an amplitude (phase) that varies less than a tenth as much as the truth's is 0, and so is
    any SSIM against a truth that does not vary. A prediction that is zero, or has a value that is not
    finite, scores as a zero amplitude with a constant phase. All scores are finite.

    Args:
        pair: of `align`, of at least 7 x 7 pixels; the truth is finite.
        set_phi: whether the truth has a phase, and the phase is to be scored.
        least_spread: share of the truth's spread below which an SSIM is 0.

    Raises:
        DataError: the images are too small for the SSIM.
    """
    if min(pair.true_amplitude.shape) < SSIM_WINDOW:
        raise DataError(
            f"image of {pair.true_amplitude.shape} is too small for the SSIM, which needs "
            f"{SSIM_WINDOW} x {SSIM_WINDOW} pixels: raise data.object_size"
        )
    rounding = FLAT * pair.true_amplitude.mean()
    varies = _spread(pair.amplitude, pair.true_amplitude, rounding) >= least_spread
    scores = Scores(
        mae_amp=float(np.abs(pair.amplitude - pair.true_amplitude).mean()),
        ssim_amp=_ssim(pair.amplitude, pair.true_amplitude, rounding) if varies else 0.0,
    )
    if not set_phi:
        return scores
    # The plane that was fitted to the difference says nothing about the prediction's own contrast.
    varies = _spread(without_plane(pair.phase), without_plane(pair.true_phase), FLAT) >= least_spread
    return replace(
        scores,
        mae_phase=float(np.abs(pair.phase - pair.true_phase).mean()),
        ssim_phase=_ssim(pair.phase, pair.true_phase, FLAT) if varies else 0.0,
    )


def constant_scores(truth: Tensor, *, set_phi: bool) -> Scores:
    """Scores of a constant reconstruction of ``truth`` (H, W), its SSIMs as they come instead of 0; see `evaluate`."""
    return evaluate(align(torch.ones_like(truth), truth), set_phi=set_phi, least_spread=0.0)


def published_scores(pair: Aligned, *, set_phi: bool) -> PublishedScores:
    """PSNR and the published phase SSIM. Arguments as in `evaluate`."""
    scores = PublishedScores(_psnr(pair.amplitude, pair.true_amplitude, FLAT * pair.true_amplitude.mean()))
    if not set_phi:
        return scores
    true, predicted = (without_plane(phase) / (2 * np.pi) + 0.5 for phase in (pair.true_phase, pair.phase))
    ssim = structural_similarity(true, predicted, data_range=1.0, win_size=SSIM_WINDOW)
    return replace(scores, psnr_phase=_psnr(pair.phase, pair.true_phase, FLAT), ssim_phase=float(ssim))


def field_spread(pair: Aligned) -> float:
    """Standard deviation of the predicted complex field, divided by the truth's.

    It is 0 for a prediction that is constant, zero or not finite, and where the truth is constant; a phase plane is no
    variation.
    """
    predicted, true = pair.fields
    return _spread(predicted, true, FLAT * np.abs(true).mean())


def detail_correlation(pair: Aligned, window: int) -> float:
    """Correlation of the predicted complex field's details with the truth's, between 0 and 1.

    Details are what is left of a field without its mean over a square window around each pixel. With a window as large
    as the probe, brightness that is right from patch to patch counts little: what is seen within a patch counts.
    It is 0 where either has no details.

    Args:
        pair: of `align`.
        window: side of the square in pixels, odd.
    """
    predicted, true = (_details(field, window) for field in pair.fields)
    norms = [float(np.sqrt((np.abs(details) ** 2).mean())) for details in (predicted, true)]
    if min(norms) <= FLAT * float(pair.true_amplitude.mean()):
        return 0.0
    return float(abs((predicted * true.conj()).mean())) / (norms[0] * norms[1])


def patch_variation(patches: Tensor) -> float:
    """Standard deviation of the predicted complex patches from one to the next, divided by their mean amplitude.

    Each patch's own phase factor, which diffraction does not determine, is removed before: it is turned towards what
    the patches have in common. The deviation is taken at each pixel and averaged over the pixels. It is 0 if all
    patches are equal but for their phase factors, zero, or if any value is not finite.

    Args:
        patches: complex or real, shape (n, ..., N, N).
    """
    flat = patches.detach().flatten(1)
    flat = flat.to(torch.complex128 if flat.is_complex() else torch.float64)
    mean = float(flat.abs().mean())
    if not (np.isfinite(mean) and mean > 0):
        return 0.0
    common = flat[int(flat.abs().square().sum(dim=1).argmax())]
    for _ in range(POWER_STEPS):  # towards the patches' first principal component
        overlaps = flat @ common.conj()
        common = overlaps.conj() @ flat
        common = common / common.abs().max()
    overlaps = flat @ common.conj()
    turned = flat * (overlaps.conj() / overlaps.abs().clamp_min(torch.finfo(torch.float64).tiny))[:, None]
    return float(turned.std(dim=0, correction=0).mean()) / mean


def _psnr(predicted: Image, true: Image, rounding: float) -> float:
    """In dB; 0 where the truth does not vary."""
    peak = float(np.ptp(true))
    if peak <= rounding:
        return 0.0
    with np.errstate(divide="ignore"):  # no error is infinite
        return float(min(peak_signal_noise_ratio(true, predicted, data_range=peak), MOST_DECIBELS))


def _details(field: Field, window: int) -> Field:
    return np.asarray(field - uniform_filter(field, window, mode="nearest"))


def _spread(predicted: Image | Field, true: Image | Field, rounding: float) -> float:
    spread = float(true.std())
    return float(predicted.std()) / spread if spread > rounding else 0.0


def _ssim(predicted: Image, true: Image, rounding: float) -> float:
    data_range = float(np.ptp(true))
    if data_range <= rounding:
        return 0.0
    return float(structural_similarity(true, predicted, data_range=data_range, win_size=SSIM_WINDOW))
