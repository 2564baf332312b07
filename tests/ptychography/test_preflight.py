"""Sizes and times of real networks, and which arms are refused on a machine with less memory."""

import json
from io import StringIO

import pytest
from rich.console import Console
from torch import nn

from fnostab.errors import LaunchError
from fnostab.ptychography import preflight as module
from fnostab.ptychography.estimates import Estimate, network_key
from fnostab.ptychography.preflight import Preflight
from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.training.step_cost import COPIES, costs, step_seconds, trace
from fnostab.record.settings import flatten
from fnostab.tasks.registry import load

DEEP = {"model.fno_blocks": 8, "model.min_resolution": 2}  # 1024 channels at 2 x 2


class Branching(nn.Conv2d):
    """Looks at its numbers, as the meta device has none; and then wants to end the process."""

    def __init__(self, config):
        super().__init__(1, 2, 1)

    def forward(self, x):
        if x.mean() > 0:
            raise SystemExit
        return x


def config(tiny_settings=None, **settings):
    return TrialConfig.from_dotted((tiny_settings or {}) | {k.replace("__", "."): v for k, v in settings.items()})


@pytest.fixture
def memory(monkeypatch):
    """A function that sets how many bytes the machine has."""

    def set_to(n_bytes):
        monkeypatch.setattr(module, "memory_for_trial", lambda jobs, gpus: int(n_bytes) // jobs)

    return set_to


def preflight(arms, jobs=1, gpus=0):
    return Preflight(arms, jobs, gpus, lambda place, given: load(place)(**given))


def estimate(config, size, **known):
    return Estimate(config, size, COPIES, costs([flatten(config)])[0]["patterns"], **known)


def shown(table):
    stream = StringIO()
    Console(file=stream, width=120).print(table)
    return stream.getvalue()


def test_eight_blocks_are_cheap():
    """No 24 GB card is needed for what a 4096-channel reference did not fit into."""
    size = trace(config(model__fno_blocks=8, model__max_hidden_channels=512, model__min_resolution=4))
    assert size.parameters < 95e6
    assert size.state_bytes < 1.6e9
    assert estimate(config(), size).needed_bytes < 4e9


@pytest.mark.parametrize(
    ("optimizer", "momentum", "moments"), [("adam", 0.9, 2), ("adamw", 0.9, 2), ("sgd", 0.9, 1), ("sgd", 0, 0)]
)
def test_the_state_follows_the_optimiser(tiny_settings, optimizer, momentum, moments):
    size = trace(config(tiny_settings, training__optimizer=optimizer, training__momentum=momentum))
    assert size.optimizer_bytes == moments * size.gradient_bytes


@pytest.mark.parametrize("loss", ["mae", "poisson"])
def test_activations_grow_with_the_batch(tiny_settings, loss):
    one, four = (
        trace(config(tiny_settings, training__loss=loss, training__batch_size=n)).activation_bytes for n in (4, 16)
    )
    assert 3 * one < four < 4.2 * one


def test_arms_that_differ_in_what_costs_nothing_are_one_network(tiny_settings):
    same = [{}, {"training__learning_rate": 0.1}, {"model__layerscale_init": 0.5}, {"data__set_phi": True}]
    assert len({network_key(config(tiny_settings, **settings)) for settings in same}) == 1
    other = [{}, {"training__batch_size": 2}, {"model__checkpoint_blocks": True}, {"training__loss": "poisson"}]
    assert len({network_key(config(tiny_settings, **settings)) for settings in other}) == len(other)


def test_the_precision_of_convolutions_costs_time_and_so_tells_networks_apart(tiny_settings):
    precisions = ({}, {"execution__convolution_precision": "bfloat16"})
    assert len({network_key(config(tiny_settings, **precision)) for precision in precisions}) == 2


def test_time_counts_training_and_evaluation(tiny_settings):
    known = estimate(config(tiny_settings, training__epochs=3), None, step_s=1.0)
    # 9 x 9 training patterns in batches of 8 are 11 steps, 5 x 5 of validation and test 4, at a third of the time
    assert known.trial_s == pytest.approx(8 + 3 * 11 + 4 * 4 / 3)
    assert estimate(known.config, None).trial_s is None


def test_a_step_is_timed(tiny_settings):
    assert 0 < step_seconds(config(tiny_settings, training__schedule="warmup_cosine"), "cpu") < 60


def test_a_study_takes_as_long_as_its_trials_side_by_side(tiny_settings, memory):
    memory(1e12)
    arms = {"a": config(tiny_settings), "b": config(tiny_settings, model__fno_blocks=1)}
    found = preflight(arms, jobs=2)
    assert found.study_s({"a": 1}) is None
    assert "of unknown time" in found.summary({"a": 1, "b": 1})
    found.measure()
    each = {arm: estimate.trial_s for arm, estimate in found.estimates.items()}
    assert found.study_s({"a": 3, "b": 3}) == pytest.approx(3 * (each["a"] + each["b"]) / 2)
    assert found.study_s({"a": 1}) == each["a"]
    assert found.summary({"a": 3, "b": 3}).startswith("6 trials, 2 at a time: about ")
    assert found.refusals() == []


def test_an_arm_that_can_not_fit_is_refused_with_what_makes_it_fit(memory):
    memory(4e9)
    arms = {"wide": config(**{k.replace(".", "__"): v for k, v in DEEP.items()}), "plain": config()}
    with pytest.raises(LaunchError) as refused:
        preflight(arms).insist_on_fit()
    message = str(refused.value)
    assert message.startswith("arm wide needs ")
    assert " GB, only 4.0 GB available: " in message
    assert "with model.max_hidden_channels=512 it needs" in message
    assert "plain" not in message
    assert "batch_size" not in message  # the weights alone are too large


def test_too_large_a_batch_is_refused_with_ways_that_leave_the_network_as_it_is(memory):
    need = estimate(config(), trace(config(training__batch_size=256))).needed_bytes
    memory(0.95 * need)
    refusals = preflight(dict.fromkeys("ab", config(training__batch_size=256))).refusals()
    assert len(refusals) == 1
    assert refusals[0].startswith("arms a, b need ")
    assert "with model.checkpoint_blocks=true it needs" in refusals[0]
    assert "with training.batch_size=128 it needs" in refusals[0]


def test_fewer_trials_side_by_side_may_be_all_that_is_needed(memory, tiny_settings):
    memory(3e9)
    found = preflight({"a": config(tiny_settings)}, jobs=8)
    (refusal,) = found.refusals()
    assert "available for each of 8 trials side by side: --jobs 5 leaves 0.6 GB" in refusal


def test_where_no_single_change_is_enough_all_are_tried_together(memory):
    memory(0.75e9)
    (refusal,) = preflight({"a": config(training__batch_size=64, model__fno_blocks=6)}).refusals()
    assert "with model.checkpoint_blocks=true and training.batch_size=1 and model.max_hidden_channels=" in refusal
    memory(1e6)
    (refusal,) = preflight({"a": config()}).refusals()
    assert refusal.endswith("lower model.fno_blocks")


def test_an_arm_that_does_not_fit_is_never_measured(memory, monkeypatch):
    memory(1e6)
    found = preflight({"a": config()})
    found.measure()
    assert found.estimates["a"].step_s is None
    assert found.described == "0 networks"


def test_a_network_of_ones_own_that_can_not_be_traced_is_unknown_and_not_refused(memory, tiny_settings):
    memory(1e6)
    own = config(tiny_settings, model__architecture=f"{__name__}.Branching")
    found = preflight({"own": own})
    found.insist_on_fit()
    found.measure()
    assert shown(found.table()).split("\n")[-2].split() == ["own", "2", *["unknown"] * 6]
    assert step_seconds(own, "cpu") is None  # not even where it ends the process


def test_unknown_memory_refuses_nothing(monkeypatch):
    monkeypatch.setattr(module, "memory_for_trial", lambda jobs, gpus: None)
    preflight({"a": config()}).insist_on_fit()


class TestStudy:
    def test_a_study_shows_what_it_takes_and_a_finished_one_measures_nothing(self, study):
        study.start()
        assert "measuring a step of 1 network" in study.output
        assert "1 trial, 1 at a time: about" in study.output
        study.start()
        assert "measuring" not in study.output

    def test_a_refused_study_leaves_nothing_behind(self, study, memory):
        memory(1e6)
        with pytest.raises(LaunchError, match="arm control needs"):
            study.start()
        assert not (study.folder / "outputs").exists()


class TestCommand:
    def test_as_json(self, call, tiny):
        status, out, _ = call(
            "estimate", "stage_a", "--profile", "small", "--seeds", "3", "--jobs", "1", "--json", *tiny
        )
        answer = json.loads(out)
        assert status == 0
        assert set(answer["arms"]) == {"control", "arch_fix", "opt_fix", "cure"}
        control = answer["arms"]["control"]
        assert (control["blocks"], control["trials"], control["fits"], answer["jobs"]) == (2, 3, True, 1)
        assert control["size"]["gradient_bytes"] == 4 * control["size"]["parameters"]
        assert answer["study_s"] == pytest.approx(sum(3 * arm["trial_s"] for arm in answer["arms"].values()))

    def test_as_a_table(self, call, tiny, memory):
        status, out, _ = call("estimate", "stage_a", "--profile", "small", "--arms", "control", "--seeds", "2", *tiny)
        assert status == 0
        assert "weights" in out
        assert "2 trials, " in out
        memory(1e6)
        status, out, _ = call("estimate", "stage_a", "--profile", "small", "--arms", "control", *tiny)
        assert status == 0
        assert "can't run: arm control needs" in out

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["no_such_study"], "no study 'no_such_study'"),
            (["stage_a", "--arms", "nobody"], "has no arm 'nobody'"),
            (["stage_a", "--jobs", "0"], "jobs='0' is not accepted"),
            (
                ["stage_a", "--set", "model.min_resolution=5"],
                "min_resolution=5 is never met: halving N=32 gives 32, 16",
            ),
        ],
    )
    def test_bad_input_is_one_line(self, call, arguments, said):
        status, out, err = call("estimate", *arguments, "--profile", "small")
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert said in err
