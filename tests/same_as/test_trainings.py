"""Every arm trains to the same numbers, to the last bit."""

import pytest
from same_as.arms import ARMS, LOCKSTEP
from same_as.records import insist_same

FAILING = {"nonfinite": "nonfinite", "overflow": "nonfinite", "collapsed": "collapsed", "exploded": "exploded"}


def of_arm(pair, arm):
    """A pair of trials, one a tree, for each seed."""
    baseline, head = pair
    keys = [key for key in baseline if key[0] == arm]
    assert keys
    return [(baseline[key], head[key]) for key in keys]


def assert_same(baseline, head):
    insist_same(baseline.points, head.points)
    insist_same(baseline.events, head.events)
    insist_same(baseline.tensors, head.tensors)


def test_both_trees_ran_the_same_trials(trained):
    baseline, head = trained
    assert sorted(baseline) == sorted((arm, 7) for arm in ARMS)
    assert sorted(head) == sorted(baseline)


def test_each_trial_ran_on_its_own_tree(trees, trained):
    for tree, trials in zip(trees, trained, strict=True):
        said = (trials["own", 7].folder / "stderr.log").read_text()
        assert f"fnostab is {tree.path / 'fnostab' / '__init__.py'}" in said


@pytest.mark.parametrize("arm", ARMS)
def test_same_numbers(trained, arm):
    for pair in of_arm(trained, arm):
        assert_same(*pair)


@pytest.mark.parametrize("arm", LOCKSTEP.arms)
def test_same_numbers_in_lockstep(in_lockstep, arm):
    pairs = of_arm(in_lockstep, arm)
    assert len(pairs) == 3
    for pair in pairs:
        assert_same(*pair)


def test_there_is_something_to_compare(trained):
    """Of the baseline alone: arms differ from one another, and end in all the ways that there are."""
    baseline, _ = trained
    assert {arm: baseline[arm, 7].outcome for arm in FAILING} == FAILING
    assert {trial.outcome for trial in baseline.values()} >= {"converged", *FAILING.values(), "stagnated"}
    assert sum(bool(trial.tensors) for trial in baseline.values()) > len(ARMS) - 5
    curves = [tuple(p for p in trial.points if p[0] == "grad_norm/clipped") for trial in baseline.values()]
    assert len(set(curves)) > len(ARMS) - 5  # checkpointed blocks, and what ends before a schedule tells
    assert any(value == "nan" for trial in baseline.values() for _, _, value in trial.points)
    assert any(name == "spike" for trial in baseline.values() for name, _ in trial.events)
