import pytest
import torch
from small_module import Recorder, Small, batches, fit
from torch import nn

from fnostab import names
from fnostab.callbacks import BlockStatistics
from fnostab.callbacks.block_statistics import block_outputs


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
    with block_outputs({"block": block}) as seen:
        block(None)
    assert tuple(map(float, seen["block"])) == expected


def test_what_is_no_tensor_is_left_out_and_the_hooks_are_taken_off():
    blocks = {
        "none": Affine(None),
        "dict": Affine({"a": 1}),
        "empty": Affine(()),
        "never called": Affine(torch.ones(2)),
    }
    with block_outputs(blocks) as seen:
        for name in ("none", "dict", "empty"):
            blocks[name](None)
    blocks["never called"](None)
    assert seen == {}


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
