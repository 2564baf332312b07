"""Image quality metrics of a reconstruction, and of a constant one for comparison.

A constant reconstruction is the typical failure, and its SSIM can be high: 1 for a phase that is zero everywhere, and
often about 0.3 for the amplitude. A reconstruction that hardly varies therefore gets an SSIM of 0, and the SSIM of a
constant (`constant_scores`) should be reported beside every other.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import uniform_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from fnostab.errors import DataError
from fnostab.ptychography.physics.alignment import FLAT, Aligned, Field, Image, align, without_plane

LEAST_SPREAD = 0.1  # share of the truth's standard deviation below which an image counts as constant
SSIM_WINDOW = 7  # pixels, scikit-image's default
POWER_STEPS = 5
MOST_DECIBELS = -20 * np.log10(FLAT)  # upper limit of a PSNR; the remaining error is rounding


@dataclass(frozen=True)
class Scores:
    """Errors and similarities of a reconstruction; those of the phase are None if it was not scored.

    Attributes:
        mae_amp: mean absolute error of the amplitude, in units of the true amplitude.
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
    """Metrics of the published evaluation; those of the phase may be None.

    Only ``ssim_phase`` is comparable with the published numbers: the published PSNR uses a peak of 255, and the
    published Fourier ring correlation is smoothed, see docs/depth.md.

    Attributes:
        psnr_amp: peak signal-to-noise ratio of the amplitude in dB, at most 120, with the truth's range as peak; 0 if
            the truth does not vary.
        psnr_phase: the same for the phase.
        ssim_phase: structural similarity of the phases without their planes, with -pi to pi mapped to 0 to 1. It is
            high for a constant and for any phase that varies little on that scale.
    """

    psnr_amp: float
    psnr_phase: float | None = None
    ssim_phase: float | None = None


def evaluate(pair: Aligned, *, set_phi: bool, least_spread: float = LEAST_SPREAD) -> Scores:
    """Score a stitched prediction against the truth.

    The SSIM is 0 for an amplitude or phase whose standard deviation is less than ``least_spread`` times the truth's,
    and if the truth does not vary. A prediction that is zero or has a non-finite value is scored as zero amplitude
    with constant phase. All scores are finite.

    Args:
        pair: result of `align`, at least 7 x 7 pixels; the truth is finite.
        set_phi: whether the truth has a phase; it is then scored.
        least_spread: share of the truth's standard deviation below which an SSIM is 0.

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
    # Planes are removed, as the plane that was fitted to the difference is no contrast of the prediction.
    varies = _spread(without_plane(pair.phase), without_plane(pair.true_phase), FLAT) >= least_spread
    return replace(
        scores,
        mae_phase=float(np.abs(pair.phase - pair.true_phase).mean()),
        ssim_phase=_ssim(pair.phase, pair.true_phase, FLAT) if varies else 0.0,
    )


def constant_scores(truth: Tensor, *, set_phi: bool) -> Scores:
    """Score a constant reconstruction of ``truth`` (H, W) as `evaluate`, but with its actual SSIM instead of 0."""
    return evaluate(align(torch.ones_like(truth), truth), set_phi=set_phi, least_spread=0.0)


def published_scores(pair: Aligned, *, set_phi: bool) -> PublishedScores:
    """Compute the PSNR and the published phase SSIM. For the arguments see `evaluate`."""
    scores = PublishedScores(_psnr(pair.amplitude, pair.true_amplitude, FLAT * pair.true_amplitude.mean()))
    if not set_phi:
        return scores
    true, predicted = (without_plane(phase) / (2 * np.pi) + 0.5 for phase in (pair.true_phase, pair.phase))
    ssim = structural_similarity(true, predicted, data_range=1.0, win_size=SSIM_WINDOW)
    return replace(scores, psnr_phase=_psnr(pair.phase, pair.true_phase, FLAT), ssim_phase=float(ssim))


def field_spread(pair: Aligned) -> float:
    """Standard deviation of the predicted complex field, relative to the truth's.

    It is 0 if the prediction is constant, zero or not finite, or the truth is constant. A phase plane does not count
    as variation.
    """
    predicted, true = pair.fields
    return _spread(predicted, true, FLAT * np.abs(true).mean())


def detail_correlation(pair: Aligned, window: int) -> float:
    """Correlation between the details of the predicted complex field and the truth's, from 0 to 1.

    The details of a field are the field minus its local mean over a square window. With a window as large as the probe
    the metric measures structure within patches, and not the mean brightness from patch to patch. It is 0 if either
    field has no details.

    Args:
        pair: result of `align`.
        window: side of the window in pixels, odd.
    """
    predicted, true = (_details(field, window) for field in pair.fields)
    norms = [float(np.sqrt((np.abs(details) ** 2).mean())) for details in (predicted, true)]
    if min(norms) <= FLAT * float(pair.true_amplitude.mean()):
        return 0.0
    return float(abs((predicted * true.conj()).mean())) / (norms[0] * norms[1])


def patch_variation(patches: Tensor) -> float:
    """Standard deviation between predicted complex patches, relative to their mean amplitude.

    The global phase of each patch, which diffraction does not determine, is aligned first: to the patches' first
    principal component. The standard deviation over patches is averaged over pixels. It is 0 if all patches are zero
    or equal up to their global phases, or if any value is not finite.

    Args:
        patches: complex or real, shape (n, ..., N, N).
    """
    flat = patches.detach().flatten(1)
    flat = flat.to(torch.complex128 if flat.is_complex() else torch.float64)
    mean = float(flat.abs().mean())
    if not (np.isfinite(mean) and mean > 0):
        return 0.0
    common = flat[int(flat.abs().square().sum(dim=1).argmax())]
    for _ in range(POWER_STEPS):  # power iteration for the first principal component
        overlaps = flat @ common.conj()
        common = overlaps.conj() @ flat
        common = common / common.abs().max()
    overlaps = flat @ common.conj()
    turned = flat * (overlaps.conj() / overlaps.abs().clamp_min(torch.finfo(torch.float64).tiny))[:, None]
    return float(turned.std(dim=0, correction=0).mean()) / mean


def _psnr(predicted: Image, true: Image, rounding: float) -> float:
    """PSNR in dB; 0 if the truth does not vary."""
    peak = float(np.ptp(true))
    if peak <= rounding:
        return 0.0
    with np.errstate(divide="ignore"):  # the PSNR of a perfect prediction is infinite
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
