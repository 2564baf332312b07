"""From which depth on training fails."""

from decision_helpers import arm, stage
from fnostab.ptychography.depths import compare_depths

from fnostab.stats.proportions import wilson

BLOCKS = {"depth_8": 8, "depth_4": 4, "depth_6": 6}


def test_the_lowest_depth_that_fails_with_its_interval():
    trials = stage("a", arm("depth_4", 10), arm("depth_6", 7, 3), arm("depth_8", 1, 9))
    found = compare_depths(trials, BLOCKS, "depth_4")
    assert [(depth.blocks, depth.summary.n_failed) for depth in found.depths] == [(4, 0), (6, 3), (8, 9)]
    assert found.lowest.blocks == 6
    low, high = wilson(3, 10)
    assert found.finding == (
        f"training begins to fail at 6 blocks: 3/10 failed (95 % interval {low:.0%} to {high:.0%}), "
        "the lowest depth that fails"
    )


def test_a_depth_that_did_not_fit_is_no_depth_that_fails():
    found = compare_depths(stage("a", arm("depth_4", 3), arm("depth_6", 3), arm("depth_8", oom=3)), BLOCKS, "depth_4")
    assert found.depths[-1].summary.excluded_line.endswith("depth_8: no training outcome: 3 oom (seeds 0, 1, 2)")
    assert found.lowest is None
    assert found.finding == "no trial failed at 4, 6 blocks"


def test_nothing_fitted_or_was_run():
    found = compare_depths(stage("a", arm("depth_4", oom=2)), BLOCKS, "depth_4")
    assert [depth.blocks for depth in found.depths] == [4]
    assert found.finding == "no trial came to a training outcome at any depth"
