"""Propagation from the object to the detector."""

import torch
from torch import Tensor


def far_field(exit_wave: Tensor) -> Tensor:
    """Propagate an exit wave to the far field by a centred, unitary 2-D Fourier transform (Fraunhofer diffraction).

    Args:
        exit_wave: complex, shape (..., N, N), with the optical axis at pixel (N // 2, N // 2).

    Returns:
        Wave at the detector, complex of the same shape, with the zero frequency at pixel (N // 2, N // 2). Its energy,
        the sum of the squared modulus, equals that of the exit wave.
    """
    axes = (-2, -1)
    spectrum = torch.fft.fft2(torch.fft.ifftshift(exit_wave, dim=axes), dim=axes, norm="ortho")
    wave: Tensor = torch.fft.fftshift(spectrum, dim=axes)
    return wave
