import math
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from trial_records import config_of

from fnostab.ptychography.training.checkpoint import BestCheckpoint


@pytest.fixture
def validate(spec, tmp_path):
    """A function that lets the checkpoint see a validation: of a loss, with weights that are all ``weight``."""
    checkpoint = BestCheckpoint(tmp_path / "best.safetensors", spec())

    def see(loss, weight, fn="fit"):
        metrics = {config_of(spec()).training.val_loss_name: torch.tensor(loss)}
        trainer = SimpleNamespace(callback_metrics=metrics, sanity_checking=False, state=SimpleNamespace(fn=fn))
        generator = torch.nn.Linear(1, 2)
        torch.nn.init.constant_(generator.weight, weight)
        checkpoint.on_validation_end(trainer, SimpleNamespace(generator=generator))

    return see


def kept(folder):
    """(weight, loss) of the checkpoint."""
    with safe_open(folder / "best.safetensors", "pt") as file:
        return float(file.get_tensor("weight")[0]), float(file.metadata()["val_loss"])


def test_the_lowest_loss_is_kept_and_of_equal_ones_the_first(validate, tmp_path):
    for weight, loss in enumerate([0.5, 0.25, 0.75, 0.25, 0.5]):
        validate(loss, weight)
    assert kept(tmp_path) == (1, 0.25)
    assert [path.name for path in tmp_path.iterdir()] == ["best.safetensors"]


def test_a_loss_that_is_not_finite_is_never_the_best(validate, tmp_path):
    for weight, loss in enumerate([math.nan, -math.inf, 0.5, math.nan, -math.inf]):
        validate(loss, weight)
    assert kept(tmp_path) == (2, 0.5)


def test_without_a_finite_loss_there_is_no_checkpoint(validate, tmp_path):
    validate(math.inf, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_validation_outside_of_training_does_not_count(validate, tmp_path):
    validate(0.5, 1)
    validate(0.1, 2, fn="validate")
    assert kept(tmp_path) == (1, 0.5)
