"""muP's learning rates: which layer gets which, and that steps then do not grow with the width."""

import json
import math

import numpy as np
import own_networks
import pytest
import torch
from cure_parts import mup
from cure_parts.mup import parameter_groups
from safetensors import safe_open
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from fnostab.errors import ModelError
from fnostab.monitor.black_box import HISTORY_FILE
from fnostab.ptychography.models import build_generator, build_initialised, residual_blocks
from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.training.kept_failure import KeptFailure
from fnostab.ptychography.training.replay import replay
from fnostab.ptychography.training.schedules import rate_factor
from fnostab.record import names
from fnostab.record.folders import find_black_box
from fnostab.record.outcomes import Outcome

OWN = own_networks.__name__
MUP = "cure_parts.mup.adam"


def config_of(**settings):
    dotted = {name.replace("__", "."): value for name, value in settings.items()}
    return TrialConfig.from_dotted(
        {"data.N": 16, "data.object_size": 40, "data.scan_stride_test": 4, "model.fno_modes": 4, **dotted}
    )


def shares_of(network, config):
    """Learning rate of every parameter, as a share of the configured one."""
    of = {p: group["lr"] for group in parameter_groups(network, config) for p in group["params"]}
    return {name: of[p] / config.training.learning_rate for name, p in network.named_parameters()}


@pytest.mark.parametrize("architecture", ["hybrid", "stable_hybrid"])
def test_a_layer_gets_less_the_more_channels_it_reads(architecture):
    """Levels of 8, 16 and 32 channels; the finest keeps the rate."""
    config = config_of(
        model__architecture=architecture, model__hidden_channels=8, model__fno_blocks=3, training__optimizer=MUP
    )
    shares = shares_of(build_generator(config.model), config)
    less = {
        "encoder.1.spectral.weight": 1 / 2,
        "encoder.1.conv.weight": 1 / 2,
        "down.1.weight": 1 / 2,
        "up.0.weight": 1 / 2,  # reads 16, gives 8
        "decoder.0.0.weight": 1 / 2,  # reads its level's 8 channels and 8 of the skip connection
        "decoder.1.2.weight": 1 / 2,
        "encoder.2.spectral.weight": 1 / 4,
        "encoder.2.conv.weight": 1 / 4,
        "bottleneck.spectral.weight": 1 / 4,
        "bottleneck.conv.weight": 1 / 4,
        "up.1.weight": 1 / 4,
        "decoder.1.0.weight": 1 / 4,
    }
    assert {name: share for name, share in shares.items() if share != 1} == less
    assert {"lifter.0.weight", "head.weight", "encoder.2.conv.bias", "encoder.0.spectral.weight"} <= shares.keys()
    assert any("gain" in name for name in shares) == (architecture == "stable_hybrid")


def test_from_a_base_on_the_rate_falls_with_the_width_of_the_network():
    config = config_of(
        model__architecture="fno", model__hidden_channels=32, training__optimizer=MUP, training__options__base_width=8
    )
    shares = shares_of(build_generator(config.model), config)
    assert shares["lifter.0.weight"] == 1  # reads the image
    assert shares["blocks.0.spectral.weight"] == shares["head.weight"] == 1 / 4
    assert {share for name, share in shares.items() if name.endswith("bias")} == {1}


def activation_changes(architecture, rates, width, seed):
    """How far the outputs of all residual blocks move in five small steps of Adam, as root mean squares."""
    base = {"training__options__base_width": 8} if rates == MUP else {}
    config = config_of(
        model__architecture=architecture,
        model__hidden_channels=width,
        model__fno_blocks=2,
        training__learning_rate=1e-4,
        training__optimizer=rates,
        **base,
    )
    network = build_initialised(config.model, seed)
    optimizer = mup.adam(network, config) if rates == MUP else torch.optim.Adam(network.parameters(), lr=1e-4)
    amplitudes = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
    seen: list[torch.Tensor] = []
    for block in residual_blocks(network).values():
        block.register_forward_hook(lambda _, inputs, output: seen.append(output.detach()))
    for _ in range(5):
        optimizer.zero_grad()
        (network(amplitudes) - (1 + 0.5j)).abs().mean().backward()
        optimizer.step()
    network(amplitudes)
    n = len(residual_blocks(network))
    return [float((last - first).square().mean().sqrt()) for first, last in zip(seen[:n], seen[-n:], strict=True)]


@pytest.mark.parametrize("architecture", ["hybrid", "stable_hybrid"])
@pytest.mark.parametrize(("rates", "least", "most"), [("adam", 0.5, 1.1), (MUP, -0.35, 0.2)])
def test_activations_move_further_in_wider_networks_unless_rates_fall_with_the_width(architecture, rates, least, most):
    """muP's own claim, as the power of the width by which they move: 1 for wide networks, and 0.

    At eight seeds the means of four were 0.69 to 0.89 and -0.22 to -0.01, single ones 0.5 to 1.06 and -0.41 to 0.19.
    Larger steps saturate: with a rate of 3e-3 the uniform ones show no power at all.
    """
    widths = (8, 16, 32, 64)
    changes = np.array([[activation_changes(architecture, rates, w, seed) for w in widths] for seed in range(4)])
    powers, _ = np.polyfit(np.log(widths), np.log(changes).mean(axis=0), 1)
    assert ((powers > least) & (powers < most)).all(), powers


@pytest.mark.parametrize(("warmup_steps", "cosine"), [(5, False), (5, True), (0, True)])
def test_schedules_keep_the_ratios(warmup_steps, cosine):
    config = config_of(training__optimizer=MUP, model__fno_blocks=3)
    optimizer = torch.optim.Adam(parameter_groups(build_generator(config.model), config))
    schedule = LambdaLR(optimizer, rate_factor(warmup_steps, 20, cosine=cosine))
    for _ in range(20):
        first, *others = (group["lr"] for group in optimizer.param_groups)
        assert [other / first for other in others] == pytest.approx([1 / 2, 1 / 4])
        optimizer.step()
        schedule.step()


# In a training


def test_the_recorded_rate_is_the_configured_one(trained):
    trial = trained(training__optimizer=MUP, training__schedule="warmup", training__warmup_steps=4)
    recorded = list(trial.curve(names.LEARNING_RATE).values())
    assert recorded[0] == pytest.approx(5e-3 / 5)
    assert recorded[-1] == 5e-3
    assert trial.points != trained(training__schedule="warmup", training__warmup_steps=4).points


@pytest.fixture(scope="module")
def overflown(trained):
    trial = trained(
        training__optimizer=MUP,
        training__learning_rate=1e20,
        training__schedule="warmup_cosine",
        training__warmup_steps=9,
        monitor__block_steps=4,
    )
    assert trial.outcome is Outcome.NONFINITE
    return KeptFailure.read(find_black_box(trial.directory))


def test_a_failure_is_replayed_to_the_last_bit(overflown):
    again = replay(overflown)
    assert again.n_equal == again.n_compared > 0
    assert again.outcome is Outcome.NONFINITE


def test_a_changed_rate_in_a_replay_keeps_the_ratios(overflown):
    moved = {}
    for rate in (1e-4, 1e-5):
        constant = {"training.schedule": "none", "training.warmup_steps": 0}
        again = replay(overflown, {"training.learning_rate": rate, **constant})
        assert again.outcome is None
        moved[rate] = again.modules[min(again.modules)]
    for module in ("encoder.0.conv", "encoder.1.conv", "bottleneck.conv"):
        assert moved[1e-5][module].update == pytest.approx(moved[1e-4][module].update / 10, rel=1e-2)
    per_weight = {name: moved[1e-4][name].update for name in ("encoder.0.conv", "encoder.1.conv")}
    n = {"encoder.0.conv": 4 * 4 * 9 + 4, "encoder.1.conv": 8 * 8 * 9 + 8}
    rms = {name: update / math.sqrt(n[name]) for name, update in per_weight.items()}
    assert rms["encoder.1.conv"] < 0.75 * rms["encoder.0.conv"]


def test_the_norms_in_the_black_box_are_those_of_the_parameters_they_are_named_after(overflown):
    """Groups put the optimiser's parameters into another order than the network's."""
    again = replay(overflown)
    with safe_open(overflown.folder / HISTORY_FILE, framework="pt") as file:
        parameters = json.loads(file.metadata()["parameters"])
        steps, gradients = (file.get_tensor(name) for name in ("step", "gradient_norms"))
    step = min(again.modules)
    kept = dict(zip(parameters, gradients[steps.tolist().index(step)].tolist(), strict=True))
    for module in ("lifter.0", "encoder.1.conv", "decoder.0.0", "head"):
        own = math.hypot(kept[f"generator.{module}.weight"], kept[f"generator.{module}.bias"])
        assert own == pytest.approx(again.modules[step][module].weight_gradient, rel=1e-5)


# Networks of one's own


def test_torch_layers_of_a_network_of_ones_own_are_known():
    layers = nn.Sequential(
        nn.Conv2d(1, 64, 3),
        nn.Conv2d(64, 64, 3, groups=4),
        nn.GroupNorm(4, 64),
        nn.ConvTranspose2d(64, 32, 2, groups=2),
        nn.Linear(128, 3),
    )
    shares = shares_of(layers, config_of(training__optimizer=MUP, training__options__base_width=8))
    assert {name: share for name, share in shares.items() if share != 1} == {
        "1.weight": 1 / 2,  # 16 channels a group
        "3.weight": 1 / 4,  # 32 channels a group
        "4.weight": 1 / 16,
    }


def test_complex_weights_get_rates_and_take_a_step_too():
    """Torch's fused Adam refuses them."""
    config = config_of(
        model__architecture="published_hybrid",
        model__hidden_channels=8,
        model__fno_blocks=3,
        training__optimizer=MUP,
        training__learning_rate=0.01,
    )
    network = build_initialised(config.model, 0)
    shares = shares_of(network, config)
    assert (shares["encoder.0.spectral.weight"], shares["encoder.2.spectral.weight"]) == (1, 1 / 4)
    optimizer = mup.adam(network, config)
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    network(torch.rand(2, 1, 16, 16)).abs().sum().backward()
    for weight in network.parameters():
        weight.grad = weight.grad.resolve_conj()
    optimizer.step()
    moved = {name: float((w.detach() - before[name]).abs().max()) for name, w in network.named_parameters()}
    assert 0 < moved["encoder.2.spectral.weight"] < 0.6 * moved["encoder.0.spectral.weight"]
    assert not optimizer.defaults["fused"]
    assert mup.adam(build_generator(config_of().model), config_of()).defaults["fused"]


def test_other_layers_must_say_what_they_read():
    config = config_of(training__optimizer=MUP, training__options__base_width=4)
    network = own_networks.Untidy(config.model)
    with pytest.raises(ModelError, match=r"which axis of columns\.weight_ih_l0, \(64, 16\), .* its LSTM reads\?"):
        parameter_groups(network, config)
    network.columns.weight_input_dim = 1
    assert shares_of(network, config)["columns.weight_ih_l0"] == 1 / 4
    network.columns.weight_input_dim = None
    assert shares_of(network, config)["columns.weight_ih_l0"] == 1


def test_frozen_parameters_are_left_out_and_tied_ones_counted_once():
    config = config_of(training__optimizer=MUP, training__options__base_width=2)
    network = own_networks.Untidy(config.model)
    network.columns.requires_grad_(False)
    network.columns.weight_input_dim = 1
    found = [p for group in parameter_groups(network, config) for p in group["params"]]
    assert {id(p) for p in found} == {id(p) for p in network.parameters() if p.requires_grad}
    assert len(found) == len(set(map(id, found)))


def test_a_network_of_ones_own_trains(trained):
    settings = {"model__architecture": f"{OWN}.Plain", "model__options__width": 16, "training__epochs": 1}
    shares = {"training__optimizer": MUP, "training__options__base_width": 4}
    assert trained(**settings, **shares).points != trained(**settings).points
