"""Blocks that are computed twice change nothing in a trial, and nothing in what its watchers say."""

import pytest

from fnostab.ptychography.training.kept_failure import KeptFailure
from fnostab.ptychography.training.replay import replay
from fnostab.record import names
from fnostab.record.folders import find_black_box
from fnostab.record.outcomes import Outcome

CHECKPOINTED = {"model__checkpoint_blocks": True}


def test_a_trial_records_the_same_numbers(trained):
    plain, checkpointed = trained(), trained(**CHECKPOINTED)
    assert checkpointed.outcome is plain.outcome
    assert checkpointed.points == plain.points
    assert any(name.startswith(names.ACTIVATION_MEAN) for name, _, _ in plain.points)


@pytest.fixture(scope="module")
def replays(trained):
    """Of the same failure, without and with checkpointing."""
    found = []
    for settings in ({}, CHECKPOINTED):
        trial = trained(training__learning_rate=1e20, **settings)
        assert trial.outcome is Outcome.NONFINITE
        found.append(replay(KeptFailure.read(find_black_box(trial.directory))))
    return found


def test_a_replay_names_the_same_module(replays):
    plain, checkpointed = replays
    assert checkpointed.n_equal == checkpointed.n_compared > 0
    assert checkpointed.culprit == plain.culprit is not None


def test_a_replay_sees_the_same_of_every_module_and_its_gradient(replays):
    plain, checkpointed = replays
    assert repr(checkpointed.modules) == repr(plain.modules)  # numbers that are not finite are not equal
    first = plain.modules[min(plain.modules)]
    assert all(state.gradient is not None for name, state in first.items() if "gain" not in name)
    assert list(first).index("encoder.0.conv") < list(first).index("bottleneck.conv")
