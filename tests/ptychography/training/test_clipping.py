import copy
import math

import pytest
import torch
from torch import Tensor, nn

from fnostab.errors import ConfigError
from fnostab.ptychography.models import SpectralConv2d
from fnostab.ptychography.settings import BUILT_IN
from fnostab.ptychography.training.clipping import (
    ALGORITHMS,
    adaptive_gradient_clip_,
    clip_by_norm_,
    clip_by_value_,
    mark_units_,
)


def parameter(weight: Tensor, grad: Tensor | None, **marks: object) -> nn.Parameter:
    made = nn.Parameter(weight)
    made.grad = None if grad is None else grad.clone()
    for name, mark in marks.items():
        setattr(made, name, mark)
    return made


def norms(values: Tensor, unit_dim: int) -> Tensor:
    """Per unit, by an explicit loop in double precision."""
    units = values.detach().to(torch.complex128 if values.is_complex() else torch.float64).unbind(unit_dim)
    return torch.tensor([math.sqrt(sum(abs(v) ** 2 for v in unit.flatten().tolist())) for unit in units])


def test_rows_of_a_linear_layer_by_hand() -> None:
    """Weight norms 5, 1, 0; lambda 0.1: limits 0.5, 0.1, and 0.1 * eps = 1e-4 for the zero row."""
    p = parameter(
        torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]]),
        torch.tensor([[0.3, 0.4], [0.0, 2.0], [3.0, 4.0]]),
    )
    share = adaptive_gradient_clip_(p, 0.1)
    expected = torch.tensor([[0.3, 0.4], [0.0, 0.1], [6e-5, 8e-5]])
    torch.testing.assert_close(p.grad, expected)
    assert share == pytest.approx(2 / 3)


def test_units_whose_weights_are_zero_use_eps() -> None:
    p = parameter(torch.zeros(4), torch.tensor([0.0, 3.0, 4.0, 0.0]))
    adaptive_gradient_clip_(p, 0.01, eps=0.5)
    torch.testing.assert_close(p.grad, torch.tensor([0.0, 3e-3, 4e-3, 0.0]))


def test_a_vector_is_one_unit_and_so_is_a_scalar() -> None:
    vector = parameter(torch.tensor([3.0, 4.0]), torch.tensor([30.0, 40.0]))
    scalar = parameter(torch.tensor(-2.0), torch.tensor(-8.0))
    share = adaptive_gradient_clip_([vector, scalar], 0.1)
    torch.testing.assert_close(vector.grad, torch.tensor([0.3, 0.4]))
    torch.testing.assert_close(scalar.grad, torch.tensor(-0.2))
    assert share == 1


def test_complex_weights_count_by_modulus() -> None:
    """||W|| = |3+4j| = 5 and 1; ||G|| = |6j+8| = 10 and 0.05."""
    p = parameter(torch.tensor([[3 + 4j], [1j]]), torch.tensor([[8 + 6j], [0.05 + 0j]]))
    share = adaptive_gradient_clip_(p, 0.1)
    torch.testing.assert_close(p.grad, torch.tensor([[0.4 + 0.3j], [0.05 + 0j]]))
    assert share == 0.5


LAYERS = {
    "linear": (lambda: nn.Linear(5, 4), 0, 4),
    "conv": (lambda: nn.Conv2d(3, 4, 3), 0, 4),
    "conv_transpose": (lambda: nn.ConvTranspose2d(3, 5, 2), 1, 5),
    "spectral": (lambda: SpectralConv2d(3, 6, 2, 8), 4, 6),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_each_output_of_a_layer_is_a_unit(kind: str) -> None:
    make, axis, units = LAYERS[kind]
    torch.manual_seed(0)
    network = nn.Sequential(make(), nn.Linear(1, 1))
    mark_units_(network)
    weight = network[0].weight
    assert norms(weight, axis).numel() == units
    weight.grad = torch.randn_like(weight) * torch.logspace(-4, 1, units).reshape(
        [-1 if a == axis else 1 for a in range(weight.ndim)]
    )
    before, limit = weight.grad.clone(), 0.05 * norms(weight, axis)
    ratio = (limit / norms(before, axis)).clamp(max=1)
    assert 0 < (ratio < 1).sum() < units
    share = adaptive_gradient_clip_(network.parameters(), 0.05)
    expected = before * ratio.to(before.dtype).reshape([-1 if a == axis else 1 for a in range(weight.ndim)])
    torch.testing.assert_close(weight.grad, expected)
    assert (norms(weight.grad, axis) <= limit * (1 + 1e-5)).all()
    assert share == pytest.approx((ratio < 1).double().mean().item())


def test_an_exploding_row_leaves_healthy_rows_untouched() -> None:
    """One norm for the whole tensor would scale the healthy rows to less than a thousandth."""
    torch.manual_seed(0)
    weight, grad = torch.randn(8, 16), 1e-3 * torch.randn(8, 16)
    grad[3] *= 1e8
    by_unit = parameter(weight, grad)
    adaptive_gradient_clip_(by_unit, 0.01)
    healthy = torch.arange(8) != 3
    assert torch.equal(by_unit.grad[healthy], grad[healthy])
    torch.testing.assert_close(by_unit.grad[3].norm(), 0.01 * weight[3].norm())

    by_tensor = parameter(weight.flatten(), grad.flatten())
    adaptive_gradient_clip_(by_tensor, 0.01)
    assert (by_tensor.grad.reshape(8, 16)[healthy].abs() < 1e-3 * grad[healthy].abs()).all()


def test_a_clipped_gradient_keeps_its_direction_and_is_not_clipped_again() -> None:
    torch.manual_seed(0)
    grad = torch.randn(4, 3, 3, 3)
    p = parameter(0.1 * torch.randn(4, 3, 3, 3), grad)
    assert adaptive_gradient_clip_(p, 0.01) == 1
    cosine = nn.functional.cosine_similarity(p.grad.flatten(1), grad.flatten(1))
    torch.testing.assert_close(cosine, torch.ones(4))
    once = p.grad.clone()
    adaptive_gradient_clip_(p, 0.01)
    torch.testing.assert_close(p.grad, once)


def test_the_final_layer_is_left_alone() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.GELU(), nn.Linear(3, 2), nn.GELU())
    mark_units_(network)
    for p in network.parameters():
        p.grad = torch.full_like(p, 100.0)
    share = adaptive_gradient_clip_(network.parameters(), 0.01)
    assert (network[2].weight.grad == 100).all()
    assert (network[2].bias.grad == 100).all()
    assert (network[0].weight.grad < 1).all()
    assert share == 1  # of the units that take part


def test_marking_again_restores_what_a_deep_copy_lost() -> None:
    network = nn.Sequential(nn.ConvTranspose2d(2, 3, 2), nn.Linear(3, 2))
    mark_units_(network)
    copied = copy.deepcopy(network)
    mark_units_(copied)
    assert copied[0].weight.unit_dim == 1
    assert copied[1].weight.agc_exempt


def test_missing_and_zero_gradients_are_skipped_or_kept() -> None:
    frozen = parameter(torch.ones(2, 2), None)
    still = parameter(torch.ones(2, 2), torch.zeros(2, 2))
    assert adaptive_gradient_clip_((p for p in (frozen, still)), 0.01) == 0
    assert frozen.grad is None
    assert torch.equal(still.grad, torch.zeros(2, 2))


def test_agc_confines_a_nan_to_its_unit_but_does_not_stop_it() -> None:
    grad = torch.full((2, 2), 10.0)
    grad[0, 0] = torch.nan
    p = parameter(torch.ones(2, 2), grad)
    adaptive_gradient_clip_(p, 0.01)
    assert p.grad[0].isnan().all()
    assert p.grad[1].isfinite().all()


@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_norm_clipping_is_torchs(max_norm: float) -> None:
    torch.manual_seed(0)
    ours = [parameter(torch.randn(3, 2), torch.randn(3, 2)), parameter(torch.randn(4), torch.randn(4))]
    theirs = [parameter(p.detach(), p.grad) for p in ours]
    total = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    assert clip_by_norm_((p for p in ours), max_norm) == float(total > max_norm)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))


def test_value_clipping_counts_elements() -> None:
    p = parameter(torch.zeros(4), torch.tensor([-3.0, 0.5, 1.0, 7.0]))
    q = parameter(torch.zeros(1), torch.tensor([0.1]))
    assert clip_by_value_([p, q], 1.0) == pytest.approx(2 / 5)
    assert p.grad.tolist() == [-1.0, 0.5, 1.0, 1.0]


def test_value_clipping_takes_complex_gradients_as_pairs_of_reals() -> None:
    p = parameter(torch.zeros(2, dtype=torch.complex64), torch.tensor([3 - 0.5j, 0.2 - 4j]))
    assert clip_by_value_(p, 1.0) == 0.5
    assert p.grad.tolist() == pytest.approx([1 - 0.5j, 0.2 - 1j])


@pytest.mark.parametrize("algorithm", BUILT_IN["gradient_clip_algorithm"])
def test_nothing_to_clip(algorithm: str) -> None:
    clip = ALGORITHMS[algorithm]
    assert clip([], 1.0) == 0
    assert clip([parameter(torch.ones(2), None)], 1.0) == 0


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_values_that_are_not_positive_are_refused(value: float) -> None:
    p = parameter(torch.ones(2), torch.ones(2))
    with pytest.raises(ConfigError, match="must be positive"):
        adaptive_gradient_clip_(p, value)
