import math

import numpy as np
import pytest
import torch

from fnostab.errors import DataError
from fnostab.ptychography.physics.alignment import align, without_plane, without_ramp


@pytest.fixture(scope="module")
def truth(lines) -> torch.Tensor:
    return lines[:60, :70]


def _plane(shape, constant, down, across):
    rows, columns = torch.meshgrid(torch.arange(shape[0]), torch.arange(shape[1]), indexing="ij")
    return constant + down * rows + across * columns


@pytest.mark.parametrize(
    ("constant", "down", "across"), [(0.0, 0.0, 0.0), (2.5, 0.0, 0.0), (1.0, 0.01, -0.02), (-3.0, 0.4, 1.1)]
)
def test_scale_global_phase_and_plane_are_removed_even_where_they_wrap(truth, constant, down, across):
    plane = _plane(truth.shape, constant, down, across)
    pair = align(7 * truth * torch.polar(torch.ones_like(plane), plane), truth)
    np.testing.assert_allclose(pair.amplitude, pair.true_amplitude, rtol=1e-4)
    np.testing.assert_allclose(pair.phase, pair.true_phase, atol=1e-4)


def test_real_errors_are_left_alone(truth):
    error = 0.3 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    pair = align(truth * torch.polar(torch.ones_like(error), error), truth)
    residual = (pair.phase - pair.true_phase) - (error - error.mean()).numpy()
    assert np.abs(residual).max() < 0.05  # the plane that the noise itself happens to hold


def test_plane_fit_is_least_squares():
    phase = np.random.default_rng(0).normal(size=(9, 14)) + 0.3 * np.arange(14)
    design = np.stack([np.ones(phase.shape), *np.indices(phase.shape)], axis=-1).reshape(-1, 3)
    fitted = design @ np.linalg.lstsq(design, phase.ravel(), rcond=None)[0]
    np.testing.assert_allclose(without_plane(phase), phase - fitted.reshape(phase.shape), atol=1e-12)


@pytest.mark.parametrize(("constant", "down", "across"), [(3.0, 0.0, 0.0), (1.0, 0.3, -0.02), (-3.0, -0.3, 0.3)])
def test_without_its_ramp_an_image_is_the_same_whichever_it_had(truth, constant, down, across):
    seen = torch.rand(truth.shape, generator=torch.Generator().manual_seed(0)) < 0.8
    plane = _plane(truth.shape, constant, down, across)
    ramped = without_ramp(seen * truth * torch.polar(torch.ones_like(plane), plane))
    torch.testing.assert_close(ramped, without_ramp(seen * truth), atol=1e-4, rtol=0)
    torch.testing.assert_close(ramped.abs(), seen * truth.abs(), atol=1e-4, rtol=0)


def test_zero_and_nonfinite_predictions_are_zero_with_a_constant_phase(truth):
    spoilt = truth.clone()
    spoilt[3, 4] = complex(math.nan, 0)
    for prediction in (torch.zeros_like(truth), spoilt):
        pair = align(prediction, truth)
        assert not pair.amplitude.any()
        assert without_plane(pair.phase).std() < 0.1 * pair.true_phase.std()


def test_shapes_must_agree(truth):
    with pytest.raises(DataError, match=r"\(60, 69\) and \(60, 70\)"):
        align(truth[:, 1:], truth)
    with pytest.raises(DataError, match="expected equal"):
        align(truth[0], truth[0])
