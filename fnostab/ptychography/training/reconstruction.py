"""Reconstruct whole objects from predicted patches, beside the truth."""

import numpy as np
import torch
from torch import Tensor, nn

from fnostab.ptychography import measured
from fnostab.ptychography.data.grid_lines import Split
from fnostab.ptychography.physics.evaluation import constant_scores, evaluate
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
    """(stitched prediction, truth of the same area) for each object of ``split``, complex (h, w)."""
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
    predicted = [evaluate(*pair, set_phi=config.set_phi) for pair in pairs]
    constant = [constant_scores(truth, set_phi=config.set_phi) for _, truth in pairs]
    values = {
        measured.MAE_AMP: [s.mae_amp for s in predicted],
        measured.SSIM_AMP: [s.ssim_amp for s in predicted],
        measured.CONSTANT_SSIM_AMP: [s.ssim_amp for s in constant],
    }
    if config.set_phi:
        values[measured.MAE_PHASE] = [s.mae_phase for s in predicted if s.mae_phase is not None]
        values[measured.SSIM_PHASE] = [s.ssim_phase for s in predicted if s.ssim_phase is not None]
        values[measured.CONSTANT_SSIM_PHASE] = [s.ssim_phase for s in constant if s.ssim_phase is not None]
    return {name: float(np.mean(each)) for name, each in values.items()}
