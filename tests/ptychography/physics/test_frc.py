"""Fourier ring correlation: a reconstruction agrees with the truth as far as its details are right."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from fnostab.ptychography.physics.alignment import align
from fnostab.ptychography.physics.frc import fourier_ring_correlation, frc_resolution


@pytest.fixture(scope="module")
def truth(lines):
    return lines


def noise(truth):
    return torch.randn(truth.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))


def test_the_truth_agrees_with_itself_at_all_frequencies(truth):
    curve = fourier_ring_correlation(align(3j * truth, truth))
    assert curve.shape == (41,)
    np.testing.assert_allclose(curve[1:], 1, atol=1e-5)
    assert frc_resolution(curve, 1 / 2) == frc_resolution(curve, 1 / 7) == 1


def test_noise_hides_high_frequencies_first_and_more_noise_more_of_them(truth):
    curves = [fourier_ring_correlation(align(truth + scale * noise(truth), truth)) for scale in (0.01, 0.1, 1.0)]
    resolutions = [frc_resolution(curve, 1 / 2) for curve in curves]
    assert 1 > resolutions[0] > resolutions[1] > resolutions[2] > 0
    assert all(frc_resolution(curve, 1 / 7) >= at for curve, at in zip(curves, resolutions, strict=True))


def test_a_filter_changes_no_phase_of_a_frequency_and_so_no_correlation(truth):
    """The correlation is of each ring alone: what is only fainter agrees."""
    blurred = gaussian_filter(truth.numpy(), 1.0, mode="wrap")
    assert fourier_ring_correlation(align(torch.from_numpy(blurred), truth))[1:15].min() > 0.95


@pytest.mark.parametrize("value", [0, 1, float("nan")])
def test_a_constant_agrees_nowhere(truth, value):
    curve = fourier_ring_correlation(align(torch.full_like(truth, value), truth))
    assert np.isfinite(curve).all()
    assert frc_resolution(curve, 1 / 2) < 0.1


@pytest.mark.parametrize("value", [1, 3 - 2j, 1e-20, 1e20])
def test_a_constants_rounding_is_no_signal_in_any_ring(truth, value):
    flat = torch.full_like(truth, value)
    for pair in (align(flat, truth), align(truth, flat), align(flat, flat)):
        assert not fourier_ring_correlation(pair).any()


def test_what_has_the_opposite_sign_disagrees(truth):
    """A field whose details are inverted about its mean is as unlike as it can be, and not as like."""
    inverted = 2 * truth.mean() - truth
    curve = fourier_ring_correlation(align(inverted, truth))
    assert curve[1:8].max() < -0.5
    assert frc_resolution(curve, 1 / 7) == 0


def test_noise_alone_correlates_with_either_sign(truth):
    """The modulus of the sum would be above 0 in every ring."""
    curve = fourier_ring_correlation(align(1 + 0.1 * noise(truth), truth))[1:]
    assert curve.min() < 0 < curve.max()
    assert abs(curve.mean()) < 0.1


def test_the_first_ring_below_the_threshold_counts():
    assert frc_resolution(np.array([0.0, 0.9, 0.4, 0.9, 0.1]), 0.5) == 0.25
    assert frc_resolution(np.array([1.0, 0.1, 0.9]), 0.5) == 0
