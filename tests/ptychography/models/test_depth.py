"""Every depth, at every size, with and without a cap; and blocks that are computed twice to save memory."""

from collections import Counter
from itertools import pairwise

import pytest
import torch
from small_network import BUILT_IN, SMALL
from torch import nn

from fnostab.errors import ModelError
from fnostab.monitor.block_statistics import block_states
from fnostab.ptychography.models import ResidualBlock, build_generator, parameter_count, residual_blocks, training_size
from fnostab.ptychography.settings import ModelConfig


class WithoutBlocks(nn.Conv2d):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__(1, 2, 1)


def gradients(generator: nn.Module, N: int) -> list[torch.Tensor]:
    patterns = torch.rand(2, 1, N, N, generator=torch.Generator().manual_seed(0))
    generator(patterns).abs().square().mean().backward()
    return [parameter.grad for parameter in generator.parameters()]


def on_meta(**settings: object) -> nn.Module:
    with torch.device("meta"):
        return build_generator(ModelConfig(**settings))


@pytest.mark.parametrize(("architecture", "residual"), BUILT_IN)
@pytest.mark.parametrize("cap", [None, 8])
@pytest.mark.parametrize(("N", "floor"), [(64, 2), (128, 4)])
@pytest.mark.parametrize("blocks", [4, 6, 8, 12, 16])
def test_every_depth_trains_a_step_and_evaluates(architecture, residual, cap, N, floor, blocks) -> None:
    config = ModelConfig(
        architecture=architecture,
        residual=residual,
        N=N,
        hidden_channels=1,
        fno_blocks=blocks,
        fno_modes=4,
        max_hidden_channels=cap,
        min_resolution=floor,
    )
    generator = build_generator(config)
    optimizer = torch.optim.Adam(generator.parameters())
    assert all(gradient.isfinite().all() for gradient in gradients(generator, N))
    optimizer.step()
    with torch.no_grad():
        patches = generator.eval()(torch.rand(1, 1, N, N))
    assert patches.shape == (1, 1, N, N)
    assert patches.isfinite().all()
    assert len(residual_blocks(generator)) == blocks + (architecture != "fno")


@pytest.mark.parametrize("N", [64, 128])
def test_below_the_floor_depth_adds_the_same_at_every_block(N: int) -> None:
    """The width ends where the resolution does, at any cap: depth costs no more than the blocks that are added."""
    for cap, widest in ((None, 512 * N // 64), (512, 512)):
        counts = [parameter_count(on_meta(N=N, fno_blocks=blocks, max_hidden_channels=cap)) for blocks in (8, 12, 16)]
        block = ResidualBlock(ModelConfig(), 1, 12, 4)  # at 4 x 4: weights, not biases, grow with the width's square
        (conv, bias), spectral = block.conv.parameters(), block.spectral.weight
        one = (conv.numel() + spectral.numel()) * widest**2 + bias.numel() * widest
        assert [b - a for a, b in pairwise(counts)] == [4 * one, 4 * one]


@pytest.mark.parametrize(("architecture", "residual"), BUILT_IN)
def test_checkpointed_blocks_have_the_same_gradients_bit_by_bit(architecture: str, residual: str) -> None:
    found = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        config = ModelConfig(architecture=architecture, residual=residual, checkpoint_blocks=checkpointed, **SMALL)
        found.append(gradients(build_generator(config), 16))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_checkpointed_blocks_keep_less() -> None:
    def activations(**settings: object) -> int:
        generator = on_meta(N=32, hidden_channels=8, **settings)
        patterns = torch.empty(16, 1, 32, 32, device="meta")
        return training_size(generator, lambda: generator(patterns).abs().mean(), 2).activation_bytes

    for architecture, share in (("fno", 0.6), ("hybrid", 0.9)):
        settings = {"architecture": architecture, "fno_blocks": 8}
        assert activations(checkpoint_blocks=True, **settings) < share * activations(**settings)


def test_hooks_of_a_checkpointed_block_run_once_and_its_statistics_are_the_same() -> None:
    seen = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        generator = build_generator(ModelConfig(checkpoint_blocks=checkpointed, **SMALL))
        calls: Counter[str] = Counter()
        for name, block in residual_blocks(generator).items():
            block.register_forward_hook(lambda *_, name=name, calls=calls: calls.update([name]))
        with block_states(residual_blocks(generator)) as states:
            gradients(generator, 16)
        assert set(calls.values()) == {1}
        seen.append(states)
    assert seen[0] == seen[1]
    assert list(seen[0]) == ["encoder.0", "encoder.1", "encoder.2", "bottleneck"]


def test_checkpointing_of_a_network_without_such_blocks_is_refused() -> None:
    name = f"{__name__}.WithoutBlocks"
    build_generator(ModelConfig(architecture=name))
    with pytest.raises(ModelError, match=r"checkpoint_blocks=true has no effect on .*WithoutBlocks: .* leave it false"):
        build_generator(ModelConfig(architecture=name, checkpoint_blocks=True))
