import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from fnostab.errors import DataError
from fnostab.ptychography.physics.objects import blur, line_object


def _object(seed=0, size=96, n_lines=60, set_phi=True):
    return line_object(size, n_lines, set_phi, torch.Generator().manual_seed(seed))


def test_blur_of_a_point_is_the_sum_of_three_gaussians():
    canvas = np.zeros((129, 129))
    canvas[64, 64] = 1
    x = np.arange(129) - 64
    expected = sum(w * np.outer(norm.pdf(x, scale=s), norm.pdf(x, scale=s)) for w, s in ((1, 1), (2, 5), (5, 10)))
    # the tails end at four standard deviations
    np.testing.assert_allclose(blur(canvas), expected, rtol=0.01, atol=1e-5)


def test_amplitude_has_mean_one_and_shows_lines():
    image = _object(set_phi=False)
    assert image.dtype == torch.complex64
    assert image.shape == (96, 96)
    amplitude = image.abs()
    assert amplitude.mean().item() == pytest.approx(1)
    assert amplitude.std() > 0.1


def test_phase_is_zero_unless_set_phi():
    without, with_phase = _object(set_phi=False), _object(set_phi=True)
    assert not without.imag.any()
    amplitude = with_phase.abs()
    torch.testing.assert_close(amplitude, without.abs())
    expected = math.pi * torch.tanh((amplitude - amplitude.max() / 2) / (3 * amplitude.mean()))
    torch.testing.assert_close(with_phase.angle(), expected, rtol=1e-4, atol=1e-5)


def test_object_follows_from_its_seed():
    torch.testing.assert_close(_object(seed=1), _object(seed=1), rtol=0, atol=0)
    assert not torch.allclose(_object(seed=1), _object(seed=2), rtol=0.1)


def test_empty_object_is_refused():
    with pytest.raises(DataError, match="n_lines=0"):
        _object(n_lines=0)
