"""Parts that bound the inputs of an activation: what each promises, and that each is composable."""

import itertools

import pytest
import torch
from small_network import SMALL, assert_only_its_own_weights_differ
from torch import nn

from fnostab.ptychography.models import build_generator, build_initialised
from fnostab.ptychography.models.bounds import Limiter, RMSNorm2d
from fnostab.ptychography.settings import ModelConfig


@pytest.fixture
def x():
    return torch.randn(3, 8, 16, 16, generator=torch.Generator().manual_seed(0))


def rms(values):
    return values.square().mean(dim=(1, 2, 3)).sqrt()


class TestLimiter:
    def test_its_output_stays_below_tau_however_large_the_input(self, x):
        limiter = Limiter(3.0)
        for scale in (1e-3, 1.0, 1e3, 1e15):
            assert (rms(limiter(scale * x)) < 3.0001).all()

    def test_what_is_small_passes(self, x):
        torch.testing.assert_close(Limiter(3.0)(1e-3 * x), 1e-3 * x)

    def test_each_sample_keeps_its_direction_and_its_own_scale(self, x):
        x[0] *= 1000
        limited = Limiter(3.0)(x)
        torch.testing.assert_close(limited[1:], Limiter(3.0)(x[1:]))
        torch.testing.assert_close(limited[0] / rms(limited)[0], x[0] / rms(x)[0])

    def test_it_keeps_gelu_alive_where_all_inputs_lie_in_its_dead_zone(self, x):
        """The mechanism of a collapse, and that its cure works: shifted to -60, as pre-activations that were seen."""
        shifted = (x - 60).requires_grad_()
        nn.functional.gelu(shifted).sum().backward()
        assert shifted.grad.abs().max() == 0
        shifted.grad = None
        nn.functional.gelu(Limiter(3.0)(shifted)).sum().backward()
        assert shifted.grad.abs().min() > 0


def test_rms_norm_makes_the_scale_of_each_sample_1(x):
    norm = RMSNorm2d(8)
    torch.testing.assert_close(
        rms(norm(x * torch.tensor([1e-2, 1, 1e4])[:, None, None, None])), torch.ones(3), rtol=0.01, atol=0
    )
    with torch.no_grad():
        norm.weight[0] = 0
    assert norm(x)[:, 0].abs().max() == 0


PARTS = {
    "pre_norm": ("none", "rms"),
    "limiter": ("none", "blocks", "decoder", "both"),
    "block": ("residual", "cure_parts.network.SkipInitBlock"),
    "decoder_activation": ("gelu", "cure_parts.network.NormedGELU"),
    "head": ("real_imaginary", "cure_parts.network.Polar"),
}


@pytest.mark.parametrize("architecture", ["hybrid", "fno"])
def test_parts_can_be_put_together(architecture):
    settings = [{part: values[-1]} for part, values in PARTS.items()]
    together = [one | other for one, other in itertools.combinations(settings, 2)]
    together.append({part: values[-1] for part, values in PARTS.items()})
    for parts in together:
        with torch.device("meta"):
            network = build_generator(ModelConfig(architecture=architecture, **SMALL, **parts))
            assert network(torch.ones(2, 1, 16, 16)).shape == (2, 1, 16, 16)


@pytest.mark.parametrize(("part", "value"), [(part, value) for part, values in PARTS.items() for value in values[1:]])
@pytest.mark.parametrize("architecture", ["hybrid", "fno"])
def test_each_part_changes_what_the_network_computes_and_no_weight_that_it_shares_with_the_plain_one(
    architecture, part, value
):
    assert_only_its_own_weights_differ(architecture, **{part: value})


def test_the_preset_is_the_hybrid_with_its_parts_set():
    preset = build_initialised(ModelConfig(architecture="bounded_hybrid", **SMALL), 1)
    by_hand = build_initialised(ModelConfig(architecture="hybrid", pre_norm="rms", limiter="both", **SMALL), 1)
    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    assert torch.equal(preset(x), by_hand(x))
