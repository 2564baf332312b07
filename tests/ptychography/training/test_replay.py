"""A failure that is run again is the same failure, and a changed setting may cure it."""

import dataclasses
import json
import math

import failing_networks
import own_networks
import pytest
from trials import STEPS_AN_EPOCH

from fnostab.errors import CheckpointError, ConfigError
from fnostab.monitor.snapshots import EVERY_STEPS
from fnostab.ptychography.training.kept_failure import KeptFailure
from fnostab.ptychography.training.replay import replay
from fnostab.ptychography.training.replay_record import replay_record, replayed_steps
from fnostab.ptychography.training.trial import run_trial
from fnostab.record.folders import find_black_box
from fnostab.record.outcomes import Outcome
from fnostab.study.study import load_study

BAD_STEP = 29


def kept(directory):
    return KeptFailure.read(find_black_box(directory))


@pytest.fixture(scope="module")
def nonfinite(trained):
    """At a step that does not depend on the numbers."""
    network = f"{failing_networks.__name__}.Counted"
    trial = trained(model__architecture=network, model__options__step=BAD_STEP, monitor__block_steps=4)
    assert trial.outcome is Outcome.NONFINITE
    return kept(trial.directory)


@pytest.fixture(scope="module")
def overflown(trained):
    """Weights that a learning rate has made too large."""
    trial = trained(training__learning_rate=1e20)
    assert trial.outcome is Outcome.NONFINITE
    return kept(trial.directory)


@pytest.fixture(scope="module")
def collapsed(tmp_path_factory):
    """An early collapse in the small profile of stage_a, at a learning rate at which nearly every seed collapses.

    Rounding, and so the processor, decides which seed collapses before a later state is kept.
    """
    folder = tmp_path_factory.mktemp("small")
    study = load_study("stage_a", "small", {"training.learning_rate": 0.02})
    for trial in study.trials("stage_a", folder, arms=["control"], seeds=range(5)):
        if run_trial(trial.spec, folder / trial.name) is Outcome.COLLAPSED:
            failure = kept(folder / trial.name)
            if failure.failure_step < EVERY_STEPS:
                return failure
    raise AssertionError("none of five seeds collapsed early")


@pytest.fixture(scope="module")
def collapsed_again(collapsed):
    return replay(collapsed)


# Again


def test_a_step_that_is_not_finite_is_not_finite_again(nonfinite):
    again = replay(nonfinite)
    assert again.outcome is Outcome.NONFINITE
    assert again.outcome is not None
    assert again.failed_at == nonfinite.failure_step == BAD_STEP
    assert again.n_equal == again.n_compared > 1
    assert min(again.losses) < BAD_STEP
    assert max(again.losses) == BAD_STEP + 2
    assert not math.isfinite(again.losses[BAD_STEP])


def test_weights_that_overflow_do_so_again(overflown):
    again = replay(overflown)
    assert again.outcome is Outcome.NONFINITE
    assert again.n_equal == again.n_compared > 0
    step, module, where, what = again.culprit
    assert step <= overflown.failure_step
    assert module in again.modules[step]
    assert (where, what != "") == ("output", True)


def test_a_collapse_is_the_same_collapse_to_the_last_bit(collapsed, collapsed_again):
    assert collapsed_again.outcome is Outcome.COLLAPSED
    assert collapsed_again.failed_at == collapsed.failure_step
    assert collapsed_again.n_equal == collapsed_again.n_compared == len(collapsed.losses)
    assert max(collapsed_again.losses) == collapsed.failure_step


def test_it_names_the_first_module_out_of_line(collapsed_again):
    step, module, where, what = collapsed_again.culprit
    assert collapsed_again.focus == step < collapsed_again.failure.failure_step
    assert where == "output"
    assert "times that of step 0" in what
    first = collapsed_again.modules[0][module].output_rms
    assert collapsed_again.modules[step][module].output_rms > 100 * first


def test_another_record_is_not_called_equal(overflown):
    other = dataclasses.replace(overflown, losses={**overflown.losses, overflown.failure_step: 0.5})
    again = replay(other)
    assert again.n_equal == again.n_compared - 1


def test_stagnation_is_judged_at_the_end(trained):
    trial = trained(
        training__learning_rate=1e-12,
        training__epochs=2,
        monitor__collapsed_spread=1e-9,
        monitor__collapsed_patch_variation=1e-9,
        monitor__exploded_vs_constant=1e9,
    )
    assert trial.outcome is Outcome.STAGNATED
    again = replay(kept(trial.directory))
    assert again.outcome is Outcome.STAGNATED
    assert again.n_equal == again.n_compared > 0
    assert again.failed_at == 2 * STEPS_AN_EPOCH - 1


def test_with_a_schedule_and_clipping(trained):
    trial = trained(
        training__learning_rate=1e20,
        training__schedule="warmup_cosine",
        training__warmup_steps=9,
        execution__gradient_clip_val=1.0,
    )
    assert trial.outcome is Outcome.NONFINITE
    failure = kept(trial.directory)
    again = replay(failure)
    assert again.n_equal == again.n_compared > 0
    assert again.outcome is Outcome.NONFINITE
    assert replay(failure, {"training.learning_rate": 1e-3}).outcome is None


# With a setting changed


def test_a_smaller_learning_rate_cures_the_collapse(collapsed):
    cured = replay(collapsed, {"training.learning_rate": 1e-3})
    assert cured.outcome is None
    assert cured.failed_at is None
    assert cured.culprit is None
    assert max(cured.losses) >= collapsed.failure_step + 64  # it was not only put off


def test_a_smaller_learning_rate_keeps_weights_finite(overflown):
    assert replay(overflown).outcome is not None
    assert replay(overflown, {"training.learning_rate": 1e-3}).outcome is None


def test_a_change_that_does_not_help(nonfinite):
    other = replay(nonfinite, {"execution.gradient_clip_val": 1.0})
    assert (other.outcome, other.failed_at) == (Outcome.NONFINITE, BAD_STEP)


def test_a_learning_rate_holds_from_the_first_replayed_step(nonfinite):
    first = min(nonfinite.losses.keys() & replay(nonfinite).losses.keys())
    rates = {}
    for rate in (5e-3, 5e-4):  # the first is the trial's own
        modules = replay(nonfinite, {"training.learning_rate": rate}).modules[first]
        rates[rate] = modules["first"].update
    assert rates[5e-4] == pytest.approx(rates[5e-3] / 10, rel=1e-3)


def test_a_schedule_can_be_added(overflown):
    settings = {"training.schedule": "warmup_cosine", "training.warmup_steps": 5, "training.learning_rate": 1e-3}
    warmed = replay(overflown, settings)
    assert warmed.outcome is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training.learning_rat": 1}, "did you mean 'learning_rate'"),
        ({"training.learning_rate": -1}, "training.learning_rate=-1"),
        ({"training.batch_size": 4}, "training.batch_size can't be changed"),
        ({"training.optimizer": "sgd"}, "training.optimizer can't be changed"),
        ({"training.optimizer": "cure_parts.mup.adam"}, "training.optimizer can't be changed"),
        ({"data.N": 32}, "data.N"),
        ({"data": {"N": 16}}, "data can't be changed"),
        ({"vary": []}, "vary can't be changed"),
        ({"model.architecture": "unknown"}, "'unknown' is not known"),
    ],
)
def test_settings_that_are_refused(overflown, settings, message):
    with pytest.raises(ConfigError, match=message):
        replay(overflown, settings)


def test_a_network_that_no_longer_fits_names_the_setting(overflown):
    settings = {"model.architecture": "stable_hybrid", "model.residual": "zero_gamma"}
    with pytest.raises(
        CheckpointError, match=r"with model\.architecture=stable_hybrid, model\.residual=zero_gamma"
    ) as e:
        replay(overflown, settings)
    assert "\n" not in str(e.value)


def test_a_damaged_state_is_refused(overflown, tmp_path):
    for path in overflown.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    state = tmp_path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="not the state of a training"):
        replay(KeptFailure.read(tmp_path))


# What is told


def test_progress_is_told_step_by_step(overflown):
    told = []
    again = replay(overflown, progress=lambda *numbers: told.append(numbers))
    assert [step for step, _ in told] == list(again.losses)


def test_a_network_without_modules_of_its_own(trained):
    trial = trained(model__architecture=f"{own_networks.__name__}.Constant", training__epochs=8)
    again = replay(kept(trial.directory))
    assert again.outcome is Outcome.COLLAPSED
    assert again.culprit is None
    assert replayed_steps(again).output_rms.shape == (0, len(again.losses))


def test_the_record_is_json_without_numbers_that_are_not_finite(nonfinite):
    again = replay(nonfinite)
    record = json.loads(json.dumps(replay_record(again), allow_nan=False))
    (bad,) = [step for step in record["steps"] if step["step"] == BAD_STEP]
    assert bad["loss"] in ("nan", "inf")
    assert record["replay"]["outcome"] == "nonfinite"
    assert len(record["steps"]) == len(again.losses)
    assert bad["modules"].keys() == again.modules[BAD_STEP].keys()


def test_the_figure_gets_every_module_and_step(collapsed_again):
    steps = replayed_steps(collapsed_again)
    assert steps.output_rms.shape == steps.dead.shape == steps.nonfinite.shape == (len(steps.modules), 34)
    assert steps.focus == collapsed_again.focus
