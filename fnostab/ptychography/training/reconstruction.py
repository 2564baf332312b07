"""Reconstruct whole objects from predicted patches, beside the truth."""

import numpy as np
import torch
from torch import Tensor, nn

from fnostab.ptychography import measured
from fnostab.ptychography.data.grid_lines import Split
from fnostab.ptychography.physics.alignment import align
from fnostab.ptychography.physics.evaluation import constant_scores, evaluate, published_scores
from fnostab.ptychography.physics.frc import fourier_ring_correlation, frc_resolution
from fnostab.ptychography.physics.scan import centre_crop, extract_patches, stitch
from fnostab.ptychography.settings import DataConfig

__all__ = ["predict", "reconstruct", "score", "true_patches"]

BATCH = 64


@torch.no_grad()
def predict(generator: nn.Module, split: Split, device: torch.device) -> Tensor:
    """Object patches of every pattern of ``split``: complex64 of shape (n, 1, N, N), on the CPU."""
    generator.eval()
    return torch.cat([generator(batch.to(device)).cpu() for batch in split.amplitudes.split(BATCH)])


def reconstruct(patches: Tensor, split: Split, config: DataConfig) -> list[tuple[Tensor, Tensor]]:
    """(stitched prediction, truth of the same area) for each object of ``split``, complex (h, w).

    Raises:
        DataError: the patches don't cover that area.
    """
    crop = centre_crop(config.N, config.scan_stride_test)
    pairs = []
    for index, truth in enumerate(split.objects):
        mine = split.image_index == index
        stitched = stitch(patches[mine, 0], split.positions[mine], crop)
        pairs.append((stitched.image, stitched.cut(truth)))
    return pairs


def true_patches(split: Split, N: int) -> Tensor:
    """The part of the object that each pattern of ``split`` was taken of: complex64 of shape (n, N, N)."""
    patches = torch.empty(len(split.positions), N, N, dtype=torch.complex64)
    for index, truth in enumerate(split.objects):
        mine = split.image_index == index
        patches[mine] = extract_patches(truth, split.positions[mine], N)
    return patches


def score(pairs: list[tuple[Tensor, Tensor]], config: DataConfig) -> dict[str, float]:
    """Test metrics, averaged over objects, with a constant's SSIM beside; phase only with ``set_phi``."""
    each = [_score_one(*pair, set_phi=config.set_phi) for pair in pairs]
    return {name: float(np.mean([values[name] for values in each])) for name in each[0]}


def _score_one(prediction: Tensor, truth: Tensor, *, set_phi: bool) -> dict[str, float]:
    pair, flat = align(prediction, truth), align(torch.ones_like(truth), truth)
    scores, constant = evaluate(pair, set_phi=set_phi), constant_scores(truth, set_phi=set_phi)
    published, of_flat = (published_scores(each, set_phi=set_phi) for each in (pair, flat))
    rings = fourier_ring_correlation(pair)
    values = {
        measured.MAE_AMP: scores.mae_amp,
        measured.SSIM_AMP: scores.ssim_amp,
        measured.CONSTANT_SSIM_AMP: constant.ssim_amp,
        measured.PSNR_AMP: published.psnr_amp,
        measured.FRC_HALF: frc_resolution(rings, 1 / 2),
        measured.FRC_SEVENTH: frc_resolution(rings, 1 / 7),
        measured.MAE_PHASE: scores.mae_phase,
        measured.SSIM_PHASE: scores.ssim_phase,
        measured.CONSTANT_SSIM_PHASE: constant.ssim_phase,
        measured.PSNR_PHASE: published.psnr_phase,
        measured.PUBLISHED_SSIM_PHASE: published.ssim_phase,
        measured.CONSTANT_PUBLISHED_SSIM_PHASE: of_flat.ssim_phase,
    }
    return {name: value for name, value in values.items() if value is not None}
