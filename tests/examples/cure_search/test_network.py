"""Parts of networks that were candidates for the cure: what each promises, and that it leaves equal layers equal."""

import pytest
import torch
from cure_parts.network import GroupNorm2d, LeakyGELU, Polar
from small_network import SMALL, assert_only_its_own_weights_differ
from torch import nn

from fnostab.errors import ModelError
from fnostab.ptychography.models import build_generator, build_initialised, residual_blocks
from fnostab.ptychography.settings import ModelConfig

PARTS = {
    "block": ("LeakyBlock", "TanhBlock", "SkipInitBlock", "DepthScaledBlock"),
    "decoder_activation": ("LeakyGELU", "NormedGELU"),
    "head": ("Polar",),
}


def config_of(setting, part, **more):
    return ModelConfig(**{setting: f"cure_parts.network.{part}"}, **SMALL, **more)


@pytest.mark.parametrize(("setting", "part"), [(setting, part) for setting, parts in PARTS.items() for part in parts])
@pytest.mark.parametrize("architecture", ["hybrid", "fno"])
def test_each_part_changes_what_the_network_computes_and_no_weight_that_it_shares_with_the_plain_one(
    architecture, setting, part
):
    assert_only_its_own_weights_differ(architecture, **{setting: f"cure_parts.network.{part}"})


def test_leaky_gelu_is_gelu_near_0_and_has_a_gradient_far_below():
    x = torch.tensor([-60.0, -1.0, 0.0, 2.0], requires_grad=True)
    y = LeakyGELU(ModelConfig(), 4)(x)
    torch.testing.assert_close(y, nn.functional.gelu(x) + 0.01 * x)
    y[0].backward()
    assert x.grad[0] == pytest.approx(0.01)


@pytest.mark.parametrize(("channels", "groups"), [(8, 2), (32, 8), (6, 1), (4, 1), (3, 1)])
def test_groups_have_four_channels_where_that_divides(channels, groups):
    assert GroupNorm2d(channels).num_groups == groups


def test_a_polar_head_gives_an_amplitude_above_0_and_a_phase_within_half_a_turn():
    values = 10 * torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    patch = Polar(ModelConfig())(values)
    assert patch.shape == (4, 1, 8, 8)
    torch.testing.assert_close(patch.abs(), nn.functional.softplus(values[:, :1]))
    assert patch.angle().abs().max() <= torch.pi


def test_a_skipinit_block_starts_as_the_identity_and_tells_its_factor():
    network = build_generator(config_of("block", "SkipInitBlock"))
    x = torch.randn(2, 4, 16, 16)
    block = next(iter(residual_blocks(network).values()))
    assert torch.equal(block(x), x)
    nn.init.constant_(block.gain.alpha, -0.5)
    assert block.gain_magnitude() == 0.5


@pytest.mark.parametrize("blocks", [2, 8])
def test_a_branch_is_scaled_by_the_depth_of_its_network(blocks):
    x = torch.randn(2, 4, 16, 16)
    config = {**SMALL, "fno_blocks": blocks, "max_hidden_channels": 4}
    scaled = build_initialised(ModelConfig(block="cure_parts.network.DepthScaledBlock", **config), 1).encoder[0]
    plain = build_initialised(ModelConfig(**config), 1).encoder[0]
    torch.testing.assert_close(scaled(x) - x, (plain(x) - x) / (2 * blocks) ** 0.5)


def test_a_block_that_would_ignore_the_published_weights_refuses_them():
    config = config_of("block", "TanhBlock", spectral_weights="published")
    with pytest.raises(ModelError, match=r"TanhBlock: .* model.spectral_weights=published: set existing"):
        build_generator(config)
    other = build_generator(config_of("block", "LeakyBlock", spectral_weights="published"))
    assert any(weight.is_complex() for weight in other.parameters())
