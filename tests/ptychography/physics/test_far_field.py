import numpy as np
import pytest
import torch

from fnostab.ptychography.physics.far_field import far_field


@pytest.fixture(params=[16, 15])
def wave(request) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, request.param, request.param, dtype=torch.complex64, generator=generator)


def test_energy_is_kept(wave):
    energy = [w.abs().square().sum(dim=(-2, -1)) for w in (wave, far_field(wave))]
    torch.testing.assert_close(energy[0], energy[1])


def test_it_is_numpys_centred_transform(wave):
    axes = (-2, -1)
    expected = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(wave.numpy(), axes), norm="ortho"), axes)
    np.testing.assert_allclose(far_field(wave).numpy(), expected, atol=1e-5)


def test_plane_wave_becomes_a_point_on_the_axis_and_the_reverse():
    plane, point = torch.ones(8, 8, dtype=torch.complex64), torch.zeros(8, 8, dtype=torch.complex64)
    point[4, 4] = 8
    torch.testing.assert_close(far_field(plane), point)
    torch.testing.assert_close(far_field(point), plane)
