"""``fnostab run --sequential``, with trials that do as they are told."""

import json

import pytest

from fnostab.decision.sequential import look_alpha
from fnostab.launch import run as run_module
from fnostab.record import names
from fnostab.tracking import find_experiment, newest_study, open_store, trial_rows

ARMS = ("--arms", "control,arch_fix,opt_fix")  # a family of two


@pytest.fixture
def run(workplace, script, tiny, call, monkeypatch):
    monkeypatch.setattr(run_module, "POLL_S", 0.02)

    def run(outcomes, *arguments):
        script({f"{arm}-{seed}": [what] for arm, kinds in outcomes.items() for seed, what in enumerate(kinds)})
        return call("run", "stage_a", "--profile", "small", *tiny, "--jobs", "2", *ARMS, *arguments)

    return run


def verdict_runs(store):
    experiment = find_experiment(store, "stage_a")
    found = store.client.search_runs([experiment], f"tags.`{names.KIND}` = 'verdict'", order_by=["start_time ASC"])
    return [each.data.tags[names.VERDICT] for each in found]


def test_decided_and_futile_arms_take_no_more_seeds(run):
    bad, good = "collapsed", "converged"
    outcomes = {"control": [bad] * 3 + [good] * 3, "arch_fix": [good] * 3, "opt_fix": [good, good, bad, *[good] * 3]}
    code, out, err = run(outcomes, "--sequential", "3,6")
    assert (code, err) == (0, "")
    store = open_store()
    experiment = find_experiment(store, "stage_a")
    study = newest_study(store, experiment)
    seeds = {arm: [r.seed for r in trial_rows(store, experiment, study) if r.arm == arm] for arm in outcomes}
    assert seeds == {"control": list(range(6)), "arch_fix": [0, 1, 2], "opt_fix": list(range(6))}
    assert "arch_fix: 0 of 3 failed, 3 of 3 of control (p = 0.031): decided" in out
    assert verdict_runs(store) == ["look 1 of 2 (3 seeds)", "look 2 of 2 (6 seeds)"]
    assert study.spec.alpha <= 0.05


def test_a_study_ends_where_no_arm_is_open(run):
    outcomes = {arm: ["collapsed"] * 3 for arm in ("control", "arch_fix", "opt_fix")}
    code, out, _ = run(outcomes, "--sequential", "3,20")
    assert code == 0
    assert out.count("chance of fewer failures at the last look: futile") == 2
    assert "look 2" not in out


def test_planned_looks_count_where_more_seeds_follow(run, call):
    outcomes = {
        "control": ["collapsed"] * 2 + ["converged"] * 7,
        **dict.fromkeys(("arch_fix", "opt_fix"), ["converged"] * 9),
    }
    run(outcomes, "--sequential", "3,6")
    answer = json.loads(call("decide", "--experiment", "stage_a", "--json")[1])
    assert not [line for line in answer["judged"] if "planned" in line]
    planned = answer["look"]
    assert (planned["planned"], planned["level"]) == (True, look_alpha([3, 6], 0.05, 2))
    run(outcomes, "--seeds", "9")
    assert json.loads(call("decide", "--experiment", "stage_a", "--json")[1])["look"] == {
        "number": 3,
        "level": 0.05 / 16,
        "planned": False,
    }


def test_looks_planned_after_a_verdict_are_said_to_come_late(run, call):
    outcomes = {arm: ["converged"] * 4 for arm in ("arch_fix", "opt_fix")} | {"control": ["collapsed"] * 4}
    run(outcomes, "--seeds", "3")
    assert call("decide", "--experiment", "stage_a")[0] == 0
    late = "stage_a: it was judged on fewer seeds before these looks were planned, so the error over all looks can"
    for _ in range(2):
        assert f"{late} exceed 0.05\n" in run(outcomes, "--sequential", "4")[1]
    beside = "judged on 3 seeds beside the planned looks: the error over all looks can exceed that of the plan"
    assert beside in " ".join(call("decide", "--experiment", "stage_a")[1].split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sequential", "20,10"], "looks='20,10' is not accepted"),
        (["--sequential", "3,5", "--seeds", "4"], "leave out --seeds"),
        (["--sequential", "3,5", "--arms", "arch_fix"], "--arms needs 'control' and a candidate"),
    ],
)
def test_what_does_not_go_together(run, arguments, message):
    code, _, err = run({}, *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
