from functools import partial

import numpy as np
import pytest
import torch
from scipy.special import xlogy

from fnostab.ptychography.physics.far_field import far_field
from fnostab.ptychography.physics.losses import constant_output_loss, mae_loss, poisson_loss
from fnostab.ptychography.physics.probe import disk_probe

SCALE, MEAN_COUNT = 1e6, 2.4e5


def _pair(relative_error, shape=(4, 1, 8, 8)):
    rng = np.random.default_rng(0)
    counts = rng.poisson(MEAN_COUNT * rng.exponential(size=shape) ** 3).astype(float)
    counts[0, 0, 0, :4] = 0
    measured = np.sqrt(counts / SCALE).astype(np.float32)
    predicted = (measured * (1 + relative_error * rng.normal(size=shape))).astype(np.float32)
    predicted[0, 0, 0, :2] = 1e-3
    return torch.from_numpy(predicted), torch.from_numpy(measured)


def _deviance_oracle(predicted, measured):
    rate, counts = (SCALE * a.double().numpy() ** 2 for a in (predicted, measured))
    return (2 * (rate - counts + xlogy(counts, counts / rate))).mean()


def test_mae_worked_out_by_hand():
    loss = mae_loss(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 2.0]), mean_amplitude=2.0)
    assert loss.item() == pytest.approx(0.25)


@pytest.mark.parametrize("relative_error", [1.0, 0.1, 1e-3])
def test_poisson_is_the_deviance_over_the_mean_count(relative_error):
    predicted, measured = _pair(relative_error)
    predicted[predicted == 0] = 1e-3  # above the floor, where the oracle is defined
    loss = poisson_loss(predicted, measured, SCALE, MEAN_COUNT)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(_deviance_oracle(predicted, measured) / MEAN_COUNT, rel=1e-5)


def test_poisson_differs_from_the_likelihood_by_a_term_without_the_rate():
    predicted, measured = _pair(0.1)
    predicted = predicted.abs() + 1e-3
    better = predicted * 0.9 + 0.1 * measured
    nll = torch.nn.PoissonNLLLoss(log_input=False, eps=0)
    counts = SCALE * measured.double() ** 2
    likelihoods = [nll(SCALE * p.double() ** 2, counts) for p in (predicted, better)]
    losses = [poisson_loss(p.double(), measured, SCALE, MEAN_COUNT) for p in (predicted, better)]
    expected = 2 * (likelihoods[0] - likelihoods[1]) / MEAN_COUNT
    assert (losses[0] - losses[1]).item() == pytest.approx(expected.item(), rel=1e-6)


def test_perfect_prediction_has_no_loss():
    _, measured = _pair(0.0)
    assert mae_loss(measured, measured, 1.0) == 0
    assert poisson_loss(measured, measured, SCALE, MEAN_COUNT).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("predicted", [0.0, 1e-12, 1e4])
@pytest.mark.parametrize("count", [0.0, 1.0, 1e9])
def test_poisson_loss_and_gradient_are_finite_at_the_extremes(predicted, count):
    amplitude = torch.full((3,), predicted, requires_grad=True)
    loss = poisson_loss(amplitude, torch.full((3,), (count / SCALE) ** 0.5), SCALE, MEAN_COUNT)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(amplitude.grad).all()


def test_gradient_is_finite_through_the_physics_at_a_zero_object():
    patch = torch.zeros(2, 1, 8, 8, dtype=torch.complex64, requires_grad=True)
    amplitude = far_field(disk_probe(8, 0.25, 3.0) * patch).abs()
    poisson_loss(amplitude, torch.ones(2, 1, 8, 8), SCALE, MEAN_COUNT).backward()
    assert torch.isfinite(torch.view_as_real(patch.grad)).all()


@pytest.mark.parametrize("modulus", [0.3, 1.0, 7.0])
def test_constant_output_is_perfect_on_a_constant_object(modulus):
    probe = disk_probe(16, 0.25, 3.0)
    amplitudes = (modulus * far_field(probe).abs()).expand(5, 1, 16, 16)
    mae = partial(mae_loss, mean_amplitude=float(amplitudes.mean()))
    assert constant_output_loss(mae, probe, amplitudes) == pytest.approx(0, abs=1e-4)


def test_constant_output_is_the_best_of_all_constants():
    probe = disk_probe(16, 0.25, 3.0)
    amplitudes = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    empty = far_field(probe).abs()
    for loss in (
        partial(mae_loss, mean_amplitude=0.5),
        partial(poisson_loss, photon_scale=SCALE, mean_count=SCALE / 3),
    ):
        best = constant_output_loss(loss, probe, amplitudes)
        others = [loss((c * empty).expand_as(amplitudes), amplitudes).item() for c in np.linspace(0.01, 5, 400)]
        assert best <= min(others) * (1 + 1e-4)
        assert best == pytest.approx(min(others), rel=1e-2)
