"""Reconstruct whole objects from predicted patches, and score them against the truth."""

import numpy as np
import torch
from torch import Tensor, nn

from fnostab.ptychography import metric_names
from fnostab.ptychography.data.grid_lines import Split
from fnostab.ptychography.physics.alignment import align, without_ramp
from fnostab.ptychography.physics.evaluation import constant_scores, evaluate, published_scores
from fnostab.ptychography.physics.frc import fourier_ring_correlation, frc_resolution
from fnostab.ptychography.physics.scan import Stitched, centre_crop, extract_patches, stitch, stitch_weighted
from fnostab.ptychography.settings import DataConfig

BATCH = 64


@torch.no_grad()
def predict(generator: nn.Module, split: Split, device: torch.device) -> Tensor:
    """Predict the object patches of all patterns of ``split``, complex64 of shape (n, 1, N, N) on the CPU."""
    generator.eval()
    return torch.cat([generator(batch.to(device)).cpu() for batch in split.amplitudes.split(BATCH)])


def reconstruct(
    patches: Tensor, split: Split, config: DataConfig, probe: Tensor | None = None
) -> list[tuple[Tensor, Tensor]]:
    """Stitch the patches of each object, and cut out the same area of the truth.

    For measured data the patches are weighted by the probe's intensity, and the truth is the reference. Without a
    reference each pair has two reconstructions, from the even and from the odd patterns. Both images are without global
    phase and phase ramp, since those of a reference are arbitrary. Pixels with too little light are set to the mean of
    the others.

    Args:
        patches: predicted patches, complex of shape (n, 1, N, N).
        split: split that the patches belong to.
        config: data settings.
        probe: probe of measured data, complex of shape (N, N).

    Returns:
        (stitched prediction, truth) for each object of ``split``, both complex of shape (h, w).

    Raises:
        DataError: the patches do not cover the area.
    """
    if config.path is not None and probe is not None:
        return [_of_measured(patches[:, 0], split, probe)]
    crop = centre_crop(config.N, config.scan_stride_test)
    pairs = []
    for index, truth in enumerate(split.objects):
        mine = split.image_index == index
        stitched = stitch(patches[mine, 0], split.positions[mine], crop)
        pairs.append((stitched.image, stitched.cut(truth)))
    return pairs


def _of_measured(patches: Tensor, split: Split, probe: Tensor) -> tuple[Tensor, Tensor]:
    weight = probe.abs().square()

    def stitched(which: slice) -> tuple[Stitched, Tensor]:
        return stitch_weighted(patches[which], split.positions[which], weight, split.positions)

    if len(split.objects):
        ours, covered = stitched(slice(None))
        pair = ours.image, ours.cut(split.objects[0])
    else:
        (one, of_one), (other, of_other) = stitched(slice(0, None, 2)), stitched(slice(1, None, 2))
        pair, covered = (one.image, other.image), of_one & of_other
    first, second = (without_ramp(torch.where(covered, image, 0)) for image in pair)
    most = covered.sum().clamp(min=1)
    return torch.where(covered, first, first.sum() / most), torch.where(covered, second, second.sum() / most)


def true_patches(split: Split, N: int) -> Tensor:
    """True object patch of each pattern of ``split``, complex64 of shape (n, N, N)."""
    patches = torch.zeros(len(split.positions), N, N, dtype=torch.complex64)
    for index, truth in enumerate(split.objects):
        mine = split.image_index == index
        patches[mine] = extract_patches(truth, split.positions[mine], N)
    return patches


def score_halves(pairs: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Compute the Fourier ring correlation of two halves of one scan, averaged over scans, by metric name."""
    rings = [fourier_ring_correlation(align(*pair)) for pair in pairs]
    return {metric_names.FRC_HALVES: float(np.mean([frc_resolution(curve, 1 / 7) for curve in rings]))}


def score(pairs: list[tuple[Tensor, Tensor]], config: DataConfig) -> dict[str, float]:
    """Compute test metrics, averaged over objects, including the SSIM of a constant.

    Args:
        pairs: result of `reconstruct`.
        config: data settings; phase metrics require ``set_phi``.

    Returns:
        Values by metric name.
    """
    each = [_score_one(*pair, set_phi=config.set_phi) for pair in pairs]
    return {name: float(np.mean([values[name] for values in each])) for name in each[0]}


def _score_one(prediction: Tensor, truth: Tensor, *, set_phi: bool) -> dict[str, float]:
    pair, flat = align(prediction, truth), align(torch.ones_like(truth), truth)
    scores, constant = evaluate(pair, set_phi=set_phi), constant_scores(truth, set_phi=set_phi)
    published, of_flat = (published_scores(each, set_phi=set_phi) for each in (pair, flat))
    rings = fourier_ring_correlation(pair)
    values = {
        metric_names.MAE_AMP: scores.mae_amp,
        metric_names.SSIM_AMP: scores.ssim_amp,
        metric_names.CONSTANT_SSIM_AMP: constant.ssim_amp,
        metric_names.PSNR_AMP: published.psnr_amp,
        metric_names.FRC_HALF: frc_resolution(rings, 1 / 2),
        metric_names.FRC_SEVENTH: frc_resolution(rings, 1 / 7),
        metric_names.MAE_PHASE: scores.mae_phase,
        metric_names.SSIM_PHASE: scores.ssim_phase,
        metric_names.CONSTANT_SSIM_PHASE: constant.ssim_phase,
        metric_names.PSNR_PHASE: published.psnr_phase,
        metric_names.PUBLISHED_SSIM_PHASE: published.ssim_phase,
        metric_names.CONSTANT_PUBLISHED_SSIM_PHASE: of_flat.ssim_phase,
    }
    return {name: value for name, value in values.items() if value is not None}
