import pytest
import torch
from small_network import SMALL
from torch import Tensor, nn

from fnostab.ptychography.models import build_initialised, initialise_
from fnostab.ptychography.settings import ModelConfig

ARMS = {
    "control": ModelConfig(**SMALL),
    "zero_gamma": ModelConfig(architecture="stable_hybrid", **SMALL),
    "layerscale": ModelConfig(architecture="stable_hybrid", residual="layerscale", **SMALL),
    "deeper": ModelConfig(**{**SMALL, "fno_blocks": 6}),
}


def weights(config: ModelConfig, seed: int) -> dict[str, Tensor]:
    return dict(build_initialised(config, seed).named_parameters())


class OwnsParameters(nn.Module):
    """A user's module with a parameter that no layer owns, drawn in its constructor."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(3))
        self.conv = nn.Conv2d(1, 2, 1)


class Lazy(nn.Module):
    """A user's network of which a layer takes its shape from the first batch."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.conv = nn.LazyConv2d(2, 1) if config.options["lazy"] else nn.Conv2d(1, 2, 1)

    def forward(self, amplitudes: Tensor) -> Tensor:
        real, imaginary = self.conv(amplitudes).chunk(2, dim=1)
        return torch.complex(real, imaginary)


@pytest.mark.parametrize("arm", ["zero_gamma", "layerscale", "deeper"])
def test_layers_that_an_arm_shares_with_control_start_equal(arm: str) -> None:
    control, other = weights(ARMS["control"], seed=1), weights(ARMS[arm], seed=1)
    shared = {name for name in control.keys() & other.keys() if control[name].shape == other[name].shape}
    assert {"lifter.0.weight", "encoder.1.spectral.weight", "up.0.weight", "decoder.0.2.bias", "head.bias"} <= shared
    assert all(torch.equal(control[name], other[name]) for name in shared)
    if arm != "deeper":
        assert shared == control.keys()


@pytest.mark.parametrize("arm", ARMS)
def test_one_seed_gives_one_network_whatever_the_global_seed(arm: str) -> None:
    torch.manual_seed(1)
    first = weights(ARMS[arm], seed=5)
    torch.manual_seed(2)
    second = weights(ARMS[arm], seed=5)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_other_seeds_and_other_layers_differ() -> None:
    first, second = weights(ARMS["control"], seed=0), weights(ARMS["control"], seed=1)
    assert not any(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["encoder.2.conv.weight"], first["bottleneck.conv.weight"])


def test_global_random_state_is_untouched() -> None:
    before = torch.get_rng_state()
    build_initialised(ARMS["control"], seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_users_own_parameters_depend_on_the_seed_alone() -> None:
    config = ModelConfig(architecture=f"{__name__}.OwnsParameters", **SMALL)
    first, again, other = (weights(config, seed) for seed in (4, 4, 5))
    assert torch.equal(first["scale"], again["scale"])
    assert not torch.equal(first["scale"], other["scale"])


def test_parameters_without_a_reset_keep_what_their_constructor_drew() -> None:
    module = OwnsParameters(ModelConfig(**SMALL))
    scale, kernel = module.scale.detach().clone(), module.conv.weight.detach().clone()
    initialise_(module, seed=0)
    assert torch.equal(module.scale, scale)
    assert not torch.equal(module.conv.weight, kernel)


def test_lazy_layers_start_as_if_their_shape_were_given() -> None:
    lazy, given = (
        weights(ModelConfig(architecture=f"{__name__}.Lazy", options={"lazy": lazy}, **SMALL), seed=3)
        for lazy in (True, False)
    )
    assert all(torch.equal(lazy[name], given[name]) for name in lazy.keys() | given.keys())
