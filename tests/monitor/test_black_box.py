"""The black box of a module that knows nothing of fnostab."""

import json

import pytest
import torch
from safetensors import safe_open
from small_module import NAN, Gan, Recorder, Small, fit

from fnostab.monitor import BlackBox, Snapshots, StabilityMonitor, StateFiles
from fnostab.monitor.black_box import HISTORY_FILE, STATE_FILE
from fnostab.monitor.state import read_state
from fnostab.record import names
from fnostab.record.names import BLACK_BOX_FILE


def failing(module, folder, steps=100, **settings):
    monitor = StabilityMonitor(Recorder(), block_steps=8)
    snapshots = Snapshots(monitor, folder)
    box = BlackBox(monitor, snapshots, folder / "box", about={"mine": 1})
    fit(module, [monitor, snapshots, box], steps, plugins=[StateFiles()], **settings)
    return monitor, json.loads((folder / "box" / BLACK_BOX_FILE).read_text())


def test_any_module_has_one(tmp_path):
    module = Small(times_gradient={82: NAN})
    monitor, about = failing(module, tmp_path)
    assert (about["outcome"], about["failure_step"], about["mine"]) == ("nonfinite", 82, 1)
    assert (about["epoch"], about["batch_index"]) == (0, 82)
    assert "batch" not in about
    state = read_state(tmp_path / "box" / STATE_FILE)
    assert state["global_step"] == 64
    assert torch.equal(torch.cat([t.flatten() for t in state["state_dict"].values()]), module.weights[64])
    with safe_open(tmp_path / "box" / HISTORY_FILE, "pt") as file:
        steps, norms = file.get_tensor("step").tolist(), file.get_tensor("grad_norm").tolist()
        assert json.loads(file.metadata()["parameters"]) == [name for name, _ in module.named_parameters()]
        losses, weights = file.get_tensor("loss").tolist(), file.get_tensor("weight_norms")
    assert steps == list(range(monitor.steps_read))
    assert norms == pytest.approx(monitor.sink.values(names.GRAD_NORM), nan_ok=True)
    assert losses == pytest.approx(monitor.sink.values(names.TRAIN_LOSS))
    assert float(weights[5].norm()) == pytest.approx(float(module.weights[5].norm()))


@pytest.mark.parametrize(("who", "step", "parameters"), [("g", 30, "g"), ("d", 60, "d")])
def test_of_several_optimisers_it_is_about_the_one_that_failed(tmp_path, who, step, parameters):
    """The critic makes two steps a batch, the Trainer counts three."""
    monitor, about = failing(Gan(spoilt=(30, who)), tmp_path, 50)
    assert (about["failure_step"], about["batch_index"]) == (step, 30) == (monitor.failure_step, 30)
    with safe_open(tmp_path / "box" / HISTORY_FILE, "pt") as file:
        assert json.loads(file.metadata()["parameters"]) == [f"{parameters}.weight", f"{parameters}.bias"]
        steps, losses = file.get_tensor("step").tolist(), file.get_tensor("loss").tolist()
        assert torch.isfinite(file.get_tensor("weight_norms")).all()
    assert steps == list(range(len(steps)))
    assert len(steps) > step
    assert losses == pytest.approx(monitor.curves[who == "d"].losses[: len(steps)], nan_ok=True)
    assert 0 < read_state(tmp_path / "box" / STATE_FILE)["global_step"] <= 90


def test_steps_that_lightning_knows_nothing_of(tmp_path):
    class Raw(Small):
        def __init__(self):
            super().__init__(times_gradient={10: NAN})
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers(use_pl_optimizer=False)
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            optimizer.step()

    _, about = failing(Raw(), tmp_path, 20)
    assert (about["failure_step"], about["batch_index"]) == (10, 10)


def test_a_module_that_knows_its_batches_says_which(tmp_path):
    class Knows(Small):
        def batch_indices(self, step):
            return [2 * step, 2 * step + 1]

    _, about = failing(Knows(times_gradient={10: NAN}), tmp_path, 20)
    assert about["batch"] == [20, 21]


def test_of_an_epoch_that_is_not_the_first(tmp_path):
    _, about = failing(Small(times_gradient={25: NAN}), tmp_path, 10, epochs=3)
    assert (about["failure_step"], about["epoch"], about["batch_index"]) == (25, 2, 5)
