"""Statistics of blocks before, during and after training, on tiny trials."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from trial_records import config_of
from trials import STEPS_AN_EPOCH

from fnostab.errors import CheckpointError
from fnostab.monitor.block_statistics import block_states
from fnostab.ptychography.models import build_initialised, residual_blocks
from fnostab.ptychography.training.activations import _states, at_initialisation, recorded_last
from fnostab.ptychography.training.checkpoint import load_checkpoint
from fnostab.record import names
from fnostab.record.journal import Journal

STEPS = 3 * STEPS_AN_EPOCH
BLOCKS = ["encoder.0", "encoder.1", "bottleneck"]


def test_before_and_after_training_every_block_gives_every_quantity(trained, spec):
    before, after = at_initialisation(spec()), recorded_last(trained().directory)
    assert before != after
    for states in (before, after):
        assert list(states) == BLOCKS
        assert all(tuple(state) == names.BLOCK_QUANTITIES for state in states.values())
    for block, state in after.items():
        for quantity, value in state.items():
            assert trained().curve(quantity + block)[STEPS - 1] == value


def test_they_are_recorded_once_an_epoch(trained):
    for quantity in names.BLOCK_QUANTITIES:
        steps = trained().curve(f"{quantity}bottleneck")
        assert list(steps) == [STEPS_AN_EPOCH * epoch - 1 for epoch in (1, 2, 3)]


def test_at_initialisation_they_are_those_of_the_first_validation_patterns(spec, data):
    config = config_of(spec())
    network = build_initialised(config.model, config.stream(0, "initialisation")).eval()
    with torch.no_grad(), block_states(residual_blocks(network)) as seen:
        network(data.validation.amplitudes[:64])
    assert at_initialisation(spec()) == {b: {q: float(v) for q, v in s.items()} for b, s in seen.items()}


def test_a_checkpoint_gives_what_was_recorded_when_it_was_written(trained, spec):
    losses = trained().curve("val/mae_val_Amp_loss")
    best = min(losses, key=losses.get)
    network, of = load_checkpoint(trained().directory / "artifacts" / "best.safetensors")
    assert of == spec()
    states = _states(network, spec())
    for block, state in states.items():
        recorded = {quantity: trained().curve(quantity + block)[best] for quantity in names.BLOCK_QUANTITIES}
        assert state == pytest.approx(recorded, rel=1e-5)


def test_a_network_of_the_users_own_gives_what_it_can(spec):
    states = at_initialisation(spec(model__architecture="own_networks.Plain"))
    assert list(states) == ["first", "last"]
    some = (names.ACTIVATION_MEAN, names.ACTIVATION_STD, names.LOW_FREQUENCIES)
    assert all(tuple(state) == some for state in states.values())


def test_an_older_journal_gives_what_it_holds_and_an_empty_one_nothing(tmp_path):
    with Journal(tmp_path) as journal:
        journal.record(0, {names.TRAIN_LOSS: 1.0})
    assert recorded_last(tmp_path) == {}
    with Journal(tmp_path) as journal:
        journal.record(3, {f"{names.ACTIVATION_MEAN}a": 1.0, f"{names.ACTIVATION_MEAN}b": 9.0})
        journal.record(7, {f"{names.ACTIVATION_MEAN}a": 2.0, f"{names.RESIDUAL_GAIN}a": 3.0})
    assert recorded_last(tmp_path) == {"a": {names.ACTIVATION_MEAN: 2.0}}


def test_weights_that_overflow_leave_only_what_is_finite(trained, spec, tmp_path):
    best = trained().directory / "artifacts" / "best.safetensors"
    weights = {name: weight.clone() for name, weight in load_file(best).items()}
    weights["bottleneck.conv.bias"][:] = math.nan
    _save_like(best, weights, tmp_path / "nan.safetensors")
    network, _ = load_checkpoint(tmp_path / "nan.safetensors")
    states = _states(network, spec())
    assert set(states["bottleneck"]) <= {names.DEAD_UNITS}
    assert all(math.isfinite(value) for state in states.values() for value in state.values())


class TestCheckpointsThatAreRefused:
    def test_of_another_network(self, trained, tmp_path):
        best = trained().directory / "artifacts" / "best.safetensors"
        weights = load_file(best)
        weights["head.weight"] = torch.zeros(2, 99, 1, 1)
        _save_like(best, weights, tmp_path / "other.safetensors")
        with pytest.raises(CheckpointError, match=r"other.safetensors is .* size mismatch for head") as refused:
            load_checkpoint(tmp_path / "other.safetensors")
        assert "\n" not in str(refused.value)

    def test_without_its_trial(self, tmp_path):
        save_file({"weight": torch.zeros(2)}, tmp_path / "plain.safetensors")
        with pytest.raises(CheckpointError, match=r"KeyError: 'trial'"):
            load_checkpoint(tmp_path / "plain.safetensors")

    def test_cut_short(self, trained, tmp_path):
        whole = (trained().directory / "artifacts" / "best.safetensors").read_bytes()
        (tmp_path / "short.safetensors").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(CheckpointError, match=r"short.safetensors is not a checkpoint"):
            load_checkpoint(tmp_path / "short.safetensors")

    def test_absent(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"can't read the checkpoint"):
            load_checkpoint(tmp_path / "absent.safetensors")


def _save_like(source, weights, path):
    """``weights`` with the metadata of the checkpoint ``source``."""
    from safetensors import safe_open

    with safe_open(source, "pt") as file:
        save_file(weights, path, metadata=file.metadata())
