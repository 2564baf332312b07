"""Twin image: a wrong reconstruction with a perfect diffraction loss.

An exit wave and its twin, rotated by 180 degrees and complex conjugated, have the same far-field amplitude, so no
diffraction loss distinguishes them (Fienup 1982, "Phase retrieval algorithms: a comparison", section V). A network
that predicts the twin has the loss of a perfect network.
"""

import torch
from torch import Tensor

from fnostab.errors import DataError


def twin_share(patches: Tensor, true_patches: Tensor, probe: Tensor) -> float:
    """Share of patches whose exit wave is closer to the twin of the true exit wave than to the true one.

    Closeness is the modulus of the inner product, which is invariant to a global phase. Patches equally close to both,
    such as zero patches, do not count as twins. The rotation is about the centre between pixels; for a probe centred on
    a pixel it is one pixel off, which is small compared with the probe.

    Args:
        patches: predicted patches, complex of shape (n, N, N).
        true_patches: patches of the true object, complex of the same shape.
        probe: complex, shape (N, N).

    Returns:
        The share; 0 if any predicted value is not finite.

    Raises:
        DataError: the shapes differ.
    """
    if patches.shape != true_patches.shape or patches.ndim != 3:
        raise DataError(
            f"can't compare shapes {tuple(patches.shape)} and {tuple(true_patches.shape)}: expected equal (n, N, N)"
        )
    if not torch.isfinite(patches).all():
        return 0.0
    wave, true = probe * patches, probe * true_patches
    overlaps = [(wave * other).sum(dim=(-2, -1)).abs() for other in (true.conj(), true.flip(-2, -1))]
    return float((overlaps[1] > overlaps[0]).double().mean())
