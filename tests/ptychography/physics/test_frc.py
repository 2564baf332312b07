"""Fourier ring correlation: a reconstruction agrees with the truth as far as its details are right."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from fnostab.ptychography.physics import fourier_ring_correlation, frc_resolution, line_object


@pytest.fixture(scope="module")
def truth():
    return line_object(80, 60, True, torch.Generator().manual_seed(0))


def noise(truth):
    return torch.randn(truth.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))


def test_the_truth_agrees_with_itself_at_all_frequencies(truth):
    curve = fourier_ring_correlation(3j * truth, truth)
    assert curve.shape == (41,)
    np.testing.assert_allclose(curve[1:], 1, atol=1e-5)
    assert frc_resolution(curve, 1 / 2) == frc_resolution(curve, 1 / 7) == 1


def test_noise_hides_high_frequencies_first_and_more_noise_more_of_them(truth):
    curves = [fourier_ring_correlation(truth + scale * noise(truth), truth) for scale in (0.01, 0.1, 1.0)]
    resolutions = [frc_resolution(curve, 1 / 2) for curve in curves]
    assert 1 > resolutions[0] > resolutions[1] > resolutions[2] > 0
    assert all(frc_resolution(curve, 1 / 7) >= at for curve, at in zip(curves, resolutions, strict=True))


def test_a_filter_changes_no_phase_of_a_frequency_and_so_no_correlation(truth):
    """The correlation is of each ring alone: what is only fainter agrees."""
    blurred = gaussian_filter(truth.numpy(), 1.0, mode="wrap")
    assert fourier_ring_correlation(torch.from_numpy(blurred), truth)[1:15].min() > 0.95


@pytest.mark.parametrize("value", [0, 1, float("nan")])
def test_a_constant_agrees_nowhere(truth, value):
    curve = fourier_ring_correlation(torch.full_like(truth, value), truth)
    assert np.isfinite(curve).all()
    assert frc_resolution(curve, 1 / 2) < 0.1


def test_the_first_ring_below_the_threshold_counts():
    assert frc_resolution(np.array([0.0, 0.9, 0.4, 0.9, 0.1]), 0.5) == 0.25
    assert frc_resolution(np.array([1.0, 0.1, 0.9]), 0.5) == 0
