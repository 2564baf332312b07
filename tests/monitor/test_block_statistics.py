import pytest
import torch
from small_module import Recorder, Small, batches, fit
from torch import nn

from fnostab.monitor import BlockStatistics
from fnostab.monitor.block_statistics import block_states
from fnostab.ptychography.models.blocks import ResidualBlock
from fnostab.ptychography.settings import ModelConfig
from fnostab.record import names


class Affine(nn.Module):
    """Gives a fixed output."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, x):
        return self.output


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (torch.tensor([1.0, 3.0]), (2.0, 1.0)),
        (torch.tensor([1, 3]), (2.0, 1.0)),
        (torch.tensor([1 + 3j]), (2.0, 1.0)),
        ((torch.tensor([1.0, 3.0]), "state"), (2.0, 1.0)),
    ],
    ids=["real", "integer", "complex", "the first of several"],
)
def test_mean_and_spread_by_hand(output, expected):
    block = Affine(output)
    with block_states({"block": block}) as seen:
        block(None)
    assert (float(seen["block"][names.ACTIVATION_MEAN]), float(seen["block"][names.ACTIVATION_STD])) == expected


def test_what_is_no_tensor_is_left_out_and_the_hooks_are_taken_off():
    blocks = {
        "none": Affine(None),
        "dict": Affine({"a": 1}),
        "empty": Affine(()),
        "never called": Affine(torch.ones(2)),
    }
    with block_states(blocks) as seen:
        for name in ("none", "dict", "empty"):
            blocks[name](None)
    blocks["never called"](None)
    assert seen == {}


class Residual(nn.Module):
    """A residual block whose parts give what is asked for."""

    def __init__(self, spectral, conv):
        super().__init__()
        self.spectral, self.conv, self.act = Affine(spectral), Affine(conv), nn.GELU()

    def forward(self, x):
        return x + self.act(self.spectral(x) + self.conv(x))


def test_a_residual_block_gives_all_quantities():
    x = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    conv = 4 * torch.ones(2, 2, 8, 8)
    conv[:, 1] = -4
    block = Residual(3 * x / x.square().mean().sqrt(), conv - torch.tensor([0, 1e3])[:, None, None])
    with block_states({"block": block}) as seen:
        y = block(x)
    state = {quantity: float(value) for quantity, value in seen["block"].items()}
    assert tuple(state) == names.BLOCK_QUANTITIES
    assert state[names.ACTIVATION_MEAN] == pytest.approx(float(y.mean()), rel=1e-5)
    assert state[names.DEAD_UNITS] == 0.5  # the second channel lies at about -1000
    assert state[names.SPECTRAL_TO_LOCAL] == pytest.approx(3 / ((4**2 + 1004**2) / 2) ** 0.5, rel=1e-5)
    assert 0 < state[names.LOW_FREQUENCIES] < 1


@pytest.mark.parametrize("residual", ["plain", "zero_gamma", "layerscale"])
def test_the_blocks_of_built_in_networks_give_all_quantities(residual):
    config = ModelConfig(architecture="fno", residual=residual)
    block = ResidualBlock(config, 3, modes=2, resolution=8)
    with block_states({"block": block}) as seen:
        block(torch.randn(2, 3, 8, 8))
    assert tuple(seen["block"]) == names.BLOCK_QUANTITIES


def test_other_blocks_give_what_they_can_in_the_order_in_which_they_run():
    blocks = {"last": nn.Flatten(), "first": nn.Conv2d(1, 2, 3)}
    with block_states(blocks) as seen:
        blocks["last"](blocks["first"](torch.randn(2, 1, 8, 8)))
    moments = [names.ACTIVATION_MEAN, names.ACTIVATION_STD]
    assert {name: list(state) for name, state in seen.items()} == {
        "first": [*moments, names.LOW_FREQUENCIES],
        "last": moments,
    }
    assert list(seen) == ["first", "last"]


class Validated(Small):
    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.norm = float(torch.cat([p.grad.flatten() for p in self.net[2].parameters()]).norm())

    def validation_step(self, batch, batch_idx):
        self.first = self.net[0](batch) if batch_idx == 0 else self.first
        self.net(batch)


def test_every_epochs_first_batch_and_last_gradient_are_recorded():
    module = Validated()
    module.net[2].gain_magnitude = lambda: torch.tensor(0.25)
    fit(module, BlockStatistics(sink := Recorder(), {"in": module.net[0], "out": module.net[2]}), 5, epochs=2)
    assert [step for step, _ in sink.points] == [4, 9]
    last = sink.points[-1][1]
    assert last[names.ACTIVATION_MEAN + "in"] == pytest.approx(float(module.first.mean()), rel=1e-5)
    assert last[names.ACTIVATION_STD + "in"] == pytest.approx(float(module.first.std(correction=0)), rel=1e-5)
    assert last[names.BLOCK_GRAD_NORM + "out"] == pytest.approx(module.norm, rel=1e-5)
    assert last[names.RESIDUAL_GAIN + "out"] == 0.25
    assert names.RESIDUAL_GAIN + "in" not in last


def test_values_that_are_not_finite_are_left_out():
    module = Validated(times_gradient={4: float("nan")})
    fit(module, BlockStatistics(sink := Recorder(), {"in": module.net[0], "out": module.net[2]}), 5)
    ((_, values),) = sink.points
    assert names.BLOCK_GRAD_NORM + "in" not in values
    assert names.BLOCK_GRAD_NORM + "out" in values


def test_a_validation_after_training_is_not_recorded():
    module = Validated()
    trainer = fit(module, BlockStatistics(sink := Recorder(), {"in": module.net[0]}), 5)
    trainer.validate(module, dataloaders=batches(2), verbose=False)
    assert len(sink.points) == 1
