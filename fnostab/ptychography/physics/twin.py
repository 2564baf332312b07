"""The twin image: a reconstruction with a perfect diffraction loss that is not the object.

An exit wave and its twin, turned by half and complex conjugated, have the same far-field amplitude, so that no
diffraction loss tells them apart (Fienup 1982, "Phase retrieval algorithms: a comparison", section V). A network
that gives the twin's patches has learnt the wrong thing as well as it can be learnt.
"""

import torch
from torch import Tensor

from fnostab.errors import DataError

__all__ = ["twin_share"]


def twin_share(patches: Tensor, true_patches: Tensor, probe: Tensor) -> float:
    """Share of the patches whose exit wave is nearer to the twin of the true one than to the true one itself.

    Nearer by the modulus of the inner product, which no global phase changes. A patch as near to one as to the other,
    as one that is zero, does not count. The twin is turned about the centre between the pixels; a probe centred on
    a pixel has it one pixel off, which is little against the size of a probe.

    Args:
        patches: predicted, complex, shape (n, N, N).
        true_patches: of the object, complex, same shape.
        probe: complex, shape (N, N).

    Returns:
        0 if any predicted value is not finite.

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
