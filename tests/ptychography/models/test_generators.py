"""The built-in networks, and a network of one's own by its dotted path."""

import sys

import pytest
import torch
from small_network import BUILT_IN, SMALL
from torch import nn

from fnostab.errors import ModelError
from fnostab.ptychography.models import build_generator, build_initialised, check_generator, parameter_count
from fnostab.ptychography.settings import ModelConfig

NOT_CALLABLE = 3


class OwnNetwork(nn.Module):
    """What a user would write, with one option; the others break the contract on purpose."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, config.options.get("kernel_size", 3), padding="same")
        self.norm = nn.BatchNorm2d(2)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.complex(*self.drop(self.norm(self.conv(x))).chunk(2, dim=1))


class RealOutput(OwnNetwork):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).abs()


class NoChannelAxis(OwnNetwork):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).squeeze(1)


class TupleOutput(OwnNetwork):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (x,)


class Exits(OwnNetwork):
    def forward(self, amplitudes: torch.Tensor) -> torch.Tensor:
        sys.exit(3)


class WrongChannels(OwnNetwork):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(torch.cat([x, x], dim=1))


def not_a_network(config: ModelConfig) -> str:
    return "weights"


def own(name: str, **settings: object) -> ModelConfig:
    return ModelConfig(architecture=f"{__name__}.{name}", **{**SMALL, **settings})


@pytest.mark.parametrize(("architecture", "residual"), BUILT_IN)
@pytest.mark.parametrize("N", [32, 16, 12, 7])
def test_amplitudes_become_complex_patches_of_the_same_size(architecture: str, residual: str, N: int) -> None:
    generator = build_generator(ModelConfig(architecture=architecture, residual=residual, **{**SMALL, "N": N}))
    if architecture == "published_hybrid" and N == 7:  # it halves whatever the resolution, the others while they can
        with pytest.raises(ModelError, match="3 blocks halve N=7 2 times, which is impossible"):
            check_generator(generator, N)
        return
    patch = generator(torch.rand(3, 1, N, N))
    assert patch.shape == (3, 1, N, N)
    assert patch.dtype == torch.complex64
    check_generator(generator, N)


@pytest.mark.parametrize(("architecture", "residual"), BUILT_IN)
def test_every_parameter_is_used(architecture: str, residual: str) -> None:
    generator = build_generator(ModelConfig(architecture=architecture, residual=residual, **SMALL))
    generator(torch.rand(2, 1, 16, 16)).abs().sum().backward()
    assert [name for name, parameter in generator.named_parameters() if parameter.grad is None] == []


def test_head_gives_real_and_imaginary_part() -> None:
    generator = build_generator(ModelConfig(**SMALL))
    with torch.no_grad():
        generator.head.weight.zero_()
        generator.head.bias.copy_(torch.tensor([2.0, -3.0]))
    assert (generator(torch.rand(1, 1, 16, 16)) == 2 - 3j).all()


def test_names_in_logs() -> None:
    names = [name for name, _ in build_generator(ModelConfig(**SMALL)).named_children()]
    assert names == ["lifter", "encoder", "bottleneck", "down", "up", "decoder", "head"]


@pytest.mark.parametrize(
    ("settings", "resolutions", "channels"),
    [
        ({"fno_blocks": 4}, [64, 32, 16, 8], [32, 64, 128, 256]),
        ({"fno_blocks": 8}, [64, 32, 16, 8, 4, 4, 4, 4], [32, 64, 128, 256, 512, 512, 512, 512]),
        ({"fno_blocks": 5, "max_hidden_channels": 100}, [64, 32, 16, 8, 4], [32, 64, 100, 100, 100]),
        ({"fno_blocks": 4, "min_resolution": 32}, [64, 32, 32, 32], [32, 64, 64, 64]),
        ({"fno_blocks": 4, "N": 20}, [20, 10, 5, 5], [32, 64, 128, 128]),
    ],
)
def test_blocks_halve_while_they_can_and_go_on_at_constant_size(
    settings: dict[str, int], resolutions: list[int], channels: list[int]
) -> None:
    with torch.device("meta"):
        generator = build_generator(ModelConfig(**settings))
    assert [block.spectral.resolution for block in generator.encoder] == resolutions
    assert [block.spectral.in_channels for block in generator.encoder] == channels
    assert generator.bottleneck.spectral.modes == 6
    assert len(generator.down) == len(generator.up) == len(generator.decoder) == len(set(resolutions)) - 1


def test_the_bottleneck_keeps_at_least_one_mode() -> None:
    assert build_generator(ModelConfig(**{**SMALL, "fno_modes": 1})).bottleneck.spectral.modes == 1


def test_eight_blocks_train_at_full_resolution() -> None:
    generator = build_generator(ModelConfig(N=64, hidden_channels=4, fno_blocks=8, max_hidden_channels=64))
    generator(torch.rand(2, 1, 64, 64)).abs().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in generator.parameters())


@pytest.mark.parametrize(
    ("settings", "millions"),
    [
        ({"fno_blocks": 4}, 20.7),
        ({"fno_blocks": 6, "min_resolution": 2}, 76.5),
        ({"fno_blocks": 6, "min_resolution": 2, "max_hidden_channels": 512}, 46.4),
        ({"fno_blocks": 8, "max_hidden_channels": 512}, 61.6),
        ({"fno_blocks": 8, "min_resolution": 2}, 112.2),
    ],
)
def test_parameter_counts_at_full_width(settings: dict[str, int], millions: float) -> None:
    with torch.device("meta"):
        generator = build_generator(ModelConfig(**settings))
    assert parameter_count(generator) == pytest.approx(millions * 1e6, abs=0.05e6)


def test_a_complex_parameter_counts_as_two() -> None:
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(3, 5, dtype=torch.complex64))
    module.bias = nn.Parameter(torch.zeros(7))
    assert parameter_count(module) == 37


def test_a_network_of_ones_own_gets_its_options() -> None:
    generator = build_generator(own("OwnNetwork", options={"kernel_size": 5}))
    assert generator.conv.kernel_size == (5, 5)
    check_generator(generator, 16)


def test_the_check_changes_nothing() -> None:
    generator = build_generator(own("OwnNetwork"))
    generator.drop.eval()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    random_state = torch.get_rng_state()
    check_generator(generator, 16)
    assert all(torch.equal(before[name], value) for name, value in generator.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert generator.training
    assert generator.norm.training
    assert not generator.drop.training


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("RealOutput", r"expected an output of \(2, 1, 16, 16\) complex64, got \(2, 1, 16, 16\) float32"),
        ("NoChannelAxis", r"expected an output of \(2, 1, 16, 16\) complex64, got \(2, 16, 16\) complex64"),
        ("TupleOutput", r"expected an output of .* got tuple"),
        ("Exits", r"Exits fails on an input of \(2, 1, 16, 16\): SystemExit: 3 at .*test_generators\.py:\d+$"),
        ("WrongChannels", r"WrongChannels fails on an input of \(2, 1, 16, 16\): RuntimeError"),
    ],
)
def test_a_broken_contract_is_named(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        check_generator(build_generator(own(name)), 16)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_package.Net", "can't import no_such_package .* PYTHONPATH"),
        (f"{__name__}.Nowhere", "Nowhere does not exist in"),
        (f"{__name__}.NOT_CALLABLE", "NOT_CALLABLE is not callable in"),
        (f"{__name__}.not_a_network", r"expected an instance of Module, got str"),
    ],
)
def test_a_path_that_leads_to_no_network_is_refused(path: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        build_generator(ModelConfig(architecture=path))
    assert "\n" not in str(caught.value)


def test_a_module_that_fails_on_import_is_one_line(tmp_path, monkeypatch) -> None:
    (tmp_path / "fnostab_broken_user_module.py").write_text("raise RuntimeError('two\\nlines')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match="RuntimeError: two lines"):
        build_generator(ModelConfig(architecture="fnostab_broken_user_module.Net"))
    assert "fnostab_broken_user_module" not in sys.modules


def test_a_constructor_that_fails_keeps_its_cause() -> None:
    with pytest.raises(ModelError, match="OwnNetwork raised") as caught:
        build_generator(own("OwnNetwork", options={"kernel_size": "wide"}))
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(("architecture", "residual"), BUILT_IN)
def test_every_layer_keeps_its_channels_last_in_memory(architecture: str, residual: str) -> None:
    """One layer that does not would make each of its neighbours copy."""
    network = build_generator(ModelConfig(architecture=architecture, residual=residual, **SMALL))
    kept = {}
    for name, layer in network.named_modules():
        if not any(layer.children()):
            layer.register_forward_hook(
                lambda layer, inputs, output, name=name: kept.update(
                    {name: output.is_contiguous(memory_format=torch.channels_last)}
                )
            )
    network(torch.rand(2, 1, 16, 16))
    assert [name for name, yes in kept.items() if not yes] == []


@pytest.mark.parametrize(("architecture", "residual"), BUILT_IN)
def test_networks_of_several_seeds_can_be_stacked(architecture: str, residual: str) -> None:
    """Each gets its own weights and input, and gives what it gives alone."""
    config = ModelConfig(architecture=architecture, residual=residual, **SMALL)
    networks = [build_initialised(config, seed) for seed in range(3)]
    amplitudes = torch.rand(3, 2, 1, 16, 16)
    weights, buffers = torch.func.stack_module_state(networks)
    together = torch.func.vmap(lambda w, b, x: torch.func.functional_call(networks[0], (w, b), (x,)))
    alone = torch.stack([network(x) for network, x in zip(networks, amplitudes, strict=True)])
    torch.testing.assert_close(together(weights, buffers, amplitudes), alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("architecture", "residual"), BUILT_IN)
def test_compilers_can_take_in_the_whole_network(architecture: str, residual: str) -> None:
    """Forward and backward as one graph each."""
    torch.compiler.reset()  # it gives up after so many networks of one class
    network = build_generator(ModelConfig(architecture=architecture, residual=residual, **SMALL))
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    x = torch.rand(2, 1, 16, 16)
    patch = compiled(x)
    patch.abs().sum().backward()
    torch.testing.assert_close(patch, network(x))
    assert all(parameter.grad is not None for parameter in network.parameters())
