"""The truth table: which verdict follows from which observed numbers."""

import pytest
from decision_helpers import GOLD, INCONCLUSIVE, PIVOT, SILVER, arm, criterion, stage, verdict_of

from fnostab.decision import Roles, State
from fnostab.errors import DecisionError

CONTROL = arm("control", 7, 3)
A_CURED = stage("a", CONTROL, arm("arch", 10, loss=0.9), arm("clip", 9, 1, loss=1.05))
A_ONLY_CLIP = stage("a", CONTROL, arm("arch", 6, 4, loss=0.9), arm("clip", 9, 1, loss=1.05))
A_NONE = stage("a", CONTROL, arm("arch", 6, 4), arm("clip", 6, 4))
B_CURED = stage("b", arm("control", 4, 6), arm("arch", 9, 1, loss=2), arm("clip", 8, 2))
B_NONE = stage("b", arm("control", 4, 6), arm("arch", 4, 6), arm("clip", 3, 7))


@pytest.mark.parametrize(
    ("a", "b", "expected", "winner"),
    [
        pytest.param(A_CURED, B_CURED, GOLD, "arch", id="the architecture cures both, though clipping helps too"),
        pytest.param(A_CURED, None, INCONCLUSIVE, None, id="Stage B was not run"),
        pytest.param(
            A_CURED, stage("b", arm("control", 4, 6)), INCONCLUSIVE, None, id="the architecture was not run in Stage B"
        ),
        pytest.param(A_ONLY_CLIP, None, SILVER, "clip", id="Silver needs no Stage B"),
        pytest.param(A_ONLY_CLIP, B_CURED, SILVER, "clip", id="the architecture failed in Stage A"),
        pytest.param(A_ONLY_CLIP, stage("b", arm("control", 9, 0)), SILVER, "clip", id="clipping not run in Stage B"),
        pytest.param(
            A_CURED,
            stage("b", arm("control", 4, 6), arm("arch", 4, 6), arm("clip", 8, 2)),
            SILVER,
            "clip",
            id="the architecture failed in Stage B",
        ),
        pytest.param(
            A_ONLY_CLIP,
            stage("b", arm("control", 10), arm("arch", 10), arm("clip", 10)),
            SILVER,
            "clip",
            id="an untestable Stage B does not stop Silver",
        ),
        pytest.param(
            A_ONLY_CLIP,
            stage("b", arm("control", 4, 6), arm("arch", 9, 1), arm("clip", 4, 6)),
            INCONCLUSIVE,
            None,
            id="clipping fails in Stage B, the architecture only in Stage A",
        ),
        pytest.param(A_ONLY_CLIP, B_NONE, PIVOT, None, id="nothing helps at depth, though clipping did in Stage A"),
        pytest.param(A_CURED, B_NONE, PIVOT, None, id="nothing helps at depth, though both did in Stage A"),
        pytest.param(A_NONE, None, INCONCLUSIVE, None, id="nothing helps, but Stage B was not run"),
        pytest.param(
            A_NONE,
            stage("b", arm("control", 4, 6), arm("arch", 4, 6)),
            PIVOT,
            None,
            id="clipping was not run in Stage B and failed in Stage A",
        ),
        pytest.param(
            A_CURED,
            stage("b", arm("control", 4, 6), arm("arch", 4, 6)),
            SILVER,
            "clip",
            id="clipping was not run in Stage B and passed Stage A",
        ),
        pytest.param(
            A_NONE, stage("b", arm("control", 4, 6)), INCONCLUSIVE, None, id="no candidate was run in Stage B"
        ),
        pytest.param(
            A_NONE,
            stage("b", arm("control", 4, 6), arm("arch", 1, 1)),
            INCONCLUSIVE,
            None,
            id="the candidate in Stage B has two trials",
        ),
        pytest.param(
            A_NONE,
            stage("b", arm("control", 10), arm("arch", 4, 6), arm("clip", 4, 6)),
            INCONCLUSIVE,
            None,
            id="control does not fail in Stage B",
        ),
        pytest.param(
            A_NONE,
            stage("b", arm("control", 4, 6), arm("arch", 9, 1, kind="nonfinite"), arm("clip", 9, 1, loss=1.2)),
            PIVOT,
            None,
            id="fewer failures, but one nonfinite and the other's loss beyond the margin",
        ),
    ],
)
def test_verdict(a, b, expected, winner):
    verdict = verdict_of(a, b)
    assert verdict.name is expected
    assert verdict.winner == winner
    assert (verdict.supported is None) == (expected is INCONCLUSIVE)


@pytest.mark.parametrize(
    "arch",
    [
        pytest.param(arm("arch", 7, 3, loss=0.9), id="as many failures"),
        pytest.param(arm("arch", 10, loss=1.0), id="no lower loss"),
        pytest.param(arm("arch", 9, 1, loss=0.9, kind="nonfinite"), id="a nonfinite trial"),
    ],
)
def test_each_criterion_of_gold_is_needed_in_stage_a(arch):
    verdict = verdict_of(stage("a", CONTROL, arch, arm("clip", 5, 5)), B_CURED)
    assert verdict.name is INCONCLUSIVE


def test_gold_does_not_ask_for_the_loss_in_stage_b():
    assert criterion(verdict_of(A_CURED, B_CURED), "b", "arch", "better_loss").state is State.NOT_MET
    assert verdict_of(A_CURED, B_CURED).name is GOLD


@pytest.mark.parametrize(
    ("clip", "expected"),
    [(arm("clip", 9, 1, loss=1.1), SILVER), (arm("clip", 9, 1, loss=1.1001), INCONCLUSIVE)],
)
def test_silver_allows_ten_percent_and_no_more(clip, expected):
    assert verdict_of(stage("a", CONTROL, arm("arch", 5, 5), clip)).name is expected


def test_a_study_with_one_candidate():
    only_architecture = Roles("control", "arch")
    assert verdict_of(A_CURED, B_CURED, only_architecture).name is GOLD
    assert verdict_of(A_ONLY_CLIP, B_CURED, only_architecture).name is INCONCLUSIVE
    assert verdict_of(A_ONLY_CLIP, B_NONE, only_architecture).name is PIVOT
    only_clipping = Roles("control", clipping="clip")
    verdict = verdict_of(A_ONLY_CLIP, B_CURED, only_clipping)  # Silver says that an architecture failed
    assert verdict.name is INCONCLUSIVE
    assert "SILVER needs a failed architecture, and no arm is the architecture" in verdict.reason


def test_a_study_without_parts_has_criteria_and_no_verdict():
    verdict = verdict_of(A_CURED, B_CURED, Roles("control"))
    assert verdict.name is INCONCLUSIVE
    assert "roles" in verdict.reason
    assert criterion(verdict, "a", "arch", "fewer_failures").state is State.MET


def test_published_stage_a_table():
    published = stage("a", arm("control", 1, loss=0.0138), arm("arch", 1, loss=0.0243), arm("clip", 0, 1))
    verdict = verdict_of(published)
    assert verdict.name is INCONCLUSIVE
    assert verdict.next_step == "run Stage B with control"
    assert {c.state for c in verdict.criteria} == {State.UNTESTABLE}
    assert "needs 3 training outcomes each, has control 1, arm 1" in verdict.reason


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (A_CURED, None, "run Stage B with arch, and control to compare it with"),
        (A_CURED, stage("b", arm("control", 4, 6)), "run Stage B with arch, and control to compare it with"),
        (A_NONE, None, "run Stage B with control"),
        (A_NONE, stage("b", arm("control", 4, 6)), "run Stage B with arch, clip"),
        (
            stage("a", arm("control", 9), arm("arch", 9), arm("clip", 9)),
            stage("b", arm("control", 9)),
            "control failed in no stage, so there is nothing to cure at this depth: crash_hunt, or a greater depth",
        ),
        (
            stage("a", CONTROL, arm("clip", 10, loss=1.0)),
            None,
            "run Stage A with arch",
        ),
        (
            stage("a", CONTROL, arm("arch", 2), arm("clip", 10)),
            None,
            "run more seeds: at least 1 more of arch in Stage A",
        ),
    ],
)
def test_next_step(a, b, expected):
    assert verdict_of(a, b).next_step == expected


def test_next_step_says_how_many_seeds():
    # against 3 of 10 one excluded trial of arch could make it 3 of 10 too
    verdict = verdict_of(stage("a", CONTROL, arm("arch", 7, 2, loss=0.9, oom=1), arm("clip", 10, loss=1.0)))
    assert verdict.name is INCONCLUSIVE
    assert "fewer_failures untestable in Stage A (1 excluded trial could change it (exclusions))" in verdict.reason
    assert "clip: passes Stage A, not run in Stage B, SILVER needs a failed architecture" in verdict.reason
    assert "arch in Stage A: no number of seeds, predictive power levels off at" in verdict.next_step
    assert "more seeds per arm (predictive power 0.8 for fewer failures)" in verdict.next_step


def test_inconclusive_names_the_criterion_that_blocks():
    verdict = verdict_of(
        A_CURED, stage("b", arm("control", 10), arm("arch", 10), arm("clip", 5, 5)), Roles("control", "arch")
    )
    assert verdict.reason == "arch: passes Stage A, fewer_failures untestable in Stage B (neither failed)"


def test_bad_tables_are_refused():
    with pytest.raises(DecisionError, match=r"Stage B has no trial of the control arm 'control'; its arms: arch"):
        verdict_of(A_CURED, stage("b", arm("arch", 5)))
    with pytest.raises(DecisionError, match="arm 'control' with seed 0 twice"):
        verdict_of(stage("a", CONTROL, CONTROL))
    with pytest.raises(DecisionError, match="each part needs an arm of its own"):
        Roles("control", "arch", "arch")


def test_best_names_the_arm_with_the_fewest_failures_and_the_lowest_loss():
    assert verdict_of(A_CURED).best == ("Stage A: fewest failures arch (0/10), best median arch (0.9, n_ok 10/10)",)
    nothing = verdict_of(stage("a", arm("control", oom=3)), roles=Roles("control"))
    assert nothing.best == ("Stage A: no training outcome",)


def test_crash_hunt():
    depths = stage("a", arm("control", 2, 1), arm("depth_6", 3), arm("depth_8", oom=3))
    four, six, eight = verdict_of(depths, roles=Roles("control")).arms
    assert four.failure_rate == pytest.approx(1 / 3)
    assert four.failure_rate_ci == pytest.approx((0.0615, 0.7923), abs=5e-4)
    assert (six.failure_rate, six.excluded_line) == (0.0, None)
    assert six.failure_rate_upper == pytest.approx(1 - 0.05 ** (1 / 3))
    assert (eight.failure_rate, eight.failure_rate_ci) == (None, None)
    assert eight.excluded_line == "Stage A, depth_8: no training outcome: 3 oom (seeds 0, 1, 2)"


def test_excluded_and_running_trials_are_counted_and_named():
    (summary, _) = verdict_of(
        stage("a", arm("control", 6, 2, oom=1, running=2), arm("arch", 3)), roles=Roles("control", "arch")
    ).arms
    assert (summary.n, summary.n_excluded, summary.n_running) == (8, 1, 2)
    assert summary.excluded_line == (
        "Stage A, control: 1 oom (seed 8), 2 running (seeds 9, 10) take no part in the rate of 2/8; "
        "with those that ended counted as failures it would be 3/9"
    )
