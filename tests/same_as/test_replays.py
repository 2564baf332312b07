"""The replay of a failure is the same, of one that each tree has had by itself.

The trials have one epoch: which state a black box holds depends on the time that it takes to write states, but
for the first.
"""

import json

import pytest
from same_as.records import comparable, insist_same, read_tensors
from same_as.trees import in_both

FAILED = ("nonfinite", "collapsed")  # arms of `same_as.arms.ARMS`
CHANGE = ("--set", "training.learning_rate=0.0001")


def replay(tree, folder, *change):
    """What ``replay --json`` says of a trial's failure; or the error."""
    output = tree.work / f"replay-{folder.parent.parent.name}-{folder.name}{'-changed' if change else ''}"
    try:
        answer = json.loads(tree.fnostab("replay", folder, "--json", "--output", output, *change))
    except AssertionError as error:
        return error
    return comparable("replay", answer, of_baseline=tree.name == "baseline")


def insist_same_replay(baseline, head):
    for answer in (baseline, head):
        if isinstance(answer, AssertionError):
            raise answer
    assert baseline["steps"]
    insist_same(baseline["replay"], head["replay"])
    insist_same(baseline["steps"], head["steps"])
    insist_same(baseline, head)


@pytest.fixture(scope="module")
def own(trees, trained):
    """(baseline, head): replays of their own failures, by arm, and of the last with another learning rate."""

    def replay_own(tree):
        trials = trained[0 if tree.name == "baseline" else 1]
        found = {arm: replay(tree, trials[arm, 7].folder) for arm in FAILED}
        return found | {"changed": replay(tree, trials[FAILED[-1], 7].folder, *CHANGE)}

    return in_both(trees, replay_own)


@pytest.mark.parametrize("name", [*FAILED, "changed"])
def test_same_replay_of_what_each_has_trained(own, name):
    insist_same_replay(*(replays[name] for replays in own))


def test_replays_repeat_the_failures(own):
    baseline, _ = own
    for arm in FAILED:
        assert baseline[arm]["replay"]["outcome"] == baseline[arm]["failure"]["outcome"] == arm
        assert baseline[arm]["replay"]["failed_at"] == baseline[arm]["failure"]["step"]
        assert baseline[arm]["replay"]["first_step"] == 0
    assert baseline["changed"]["steps"] != baseline[FAILED[-1]]["steps"]


@pytest.mark.parametrize("arm", FAILED)
def test_same_history_in_black_boxes(trained, arm):
    paths = [trials[arm, 7].folder / "artifacts" / "black_box" / "history.safetensors" for trials in trained]
    insist_same(*(dict(read_tensors(path)) for path in paths))
