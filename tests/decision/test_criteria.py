"""Criteria on observed numbers, and whether their tests support them."""

import math
from dataclasses import replace

import pytest
import scipy
from decision_helpers import GOLD, PIVOT, SILVER, arm, criterion, stage, verdict_of

from fnostab.decision import Roles, Rules, Stage, State
from fnostab.record.outcomes import Outcome
from fnostab.record.table import TrialRow
from fnostab.record.trial import Measure
from fnostab.stats.proportions import fewer_failures_p, newcombe_difference
from fnostab.stats.rate import Rate

ONE = Roles("control", "arch")


def judged(control, arch, name, **options):
    return criterion(verdict_of(stage("a", control, arch), roles=ONE, **options), "a", "arch", name)


@pytest.mark.parametrize(
    ("control", "arch", "state"),
    [
        (arm("control", 7, 3), arm("arch", 10), State.MET),
        (arm("control", 7, 3), arm("arch", 7, 3), State.NOT_MET),
        (arm("control", 2, 1), arm("arch", 7, 3), State.MET),  # 1/3 against 3/10
        (arm("control", 10), arm("arch", 9, 1), State.NOT_MET),
        (arm("control", 10), arm("arch", 10), State.UNTESTABLE),
        (arm("control", 0, 5), arm("arch", 0, 5), State.NOT_MET),
        (arm("control", 2), arm("arch", 7, 3), State.UNTESTABLE),
        (arm("control", 7, 3), arm("arch", 2), State.UNTESTABLE),
        (arm("control", 7, 3), arm("arch", 7, 2, oom=1), State.UNTESTABLE),  # 3/10 if that one had failed
        (arm("control", 7, 3), arm("arch", 9, oom=1), State.MET),  # 1/10 is still fewer
        (arm("control", 6, 2, oom=2), arm("arch", 9, 2), State.MET),  # 2/10 against 2/11 is still fewer
        (arm("control", 6, 2, oom=2), arm("arch", 7, 2), State.UNTESTABLE),  # 2/8 against 2/9, but 2/10 against 2/9
    ],
)
def test_fewer_failures(control, arch, state):
    assert judged(control, arch, "fewer_failures").state is state


def test_a_criterion_that_can_not_be_tested_says_why_and_has_no_p():
    found = judged(arm("control", 6, 2, oom=2), arm("arch", 7, 2), "fewer_failures")
    assert found.state is State.UNTESTABLE
    assert found.detail.endswith("2 trials without an outcome could change it")
    assert (found.supported, found.p) == (None, None)


@pytest.mark.parametrize(
    ("control", "arch", "better", "within"),
    [
        (arm("control", 5, loss=1.0), arm("arch", 5, loss=0.9), State.MET, State.MET),
        (arm("control", 5, loss=1.0), arm("arch", 5, loss=1.0), State.NOT_MET, State.MET),
        (arm("control", 5, loss=1.0), arm("arch", 5, loss=1.2), State.NOT_MET, State.NOT_MET),
        (arm("control", 5), arm("arch", 0, 5), State.NOT_MET, State.NOT_MET),
        (arm("control", 0, 5), arm("arch", 5), State.MET, State.MET),
        (arm("control", 0, 5), arm("arch", 0, 5), State.NOT_MET, State.NOT_MET),
        (arm("control", 0, 5, oom=1), arm("arch", 5), State.MET, State.MET),  # one success would not change it
        (arm("control", 0, 5, oom=6), arm("arch", 5), State.UNTESTABLE, State.UNTESTABLE),  # six might
        (arm("control", 2, 5), arm("arch", 5), State.MET, State.MET),  # over all trials, failures last
        (arm("control", 5), arm("arch", 2, 3), State.UNTESTABLE, State.UNTESTABLE),
        (arm("control", 5), arm("arch", 0, 5, oom=1), State.UNTESTABLE, State.UNTESTABLE),
        (arm("control", 2), arm("arch", 5), State.UNTESTABLE, State.UNTESTABLE),
    ],
)
def test_losses(control, arch, better, within):
    assert judged(control, arch, "better_loss").state is better
    assert judged(control, arch, "loss_within_margin").state is within


def test_successes_of_unknown_loss_are_not_taken_for_failures():
    unknown = [TrialRow("arch", seed, Outcome.CONVERGED) for seed in range(5)]
    found = judged(arm("control", 5), unknown, "better_loss")
    assert found.state is State.UNTESTABLE
    assert "the losses of the successes are not known" in found.detail


@pytest.mark.parametrize("fields", [{"failed": 0}, {"failed": 2}])
def test_control_of_unknown_loss_can_not_be_compared(fields):
    unknown = [TrialRow("control", 9, Outcome.CONVERGED), TrialRow("control", 10, Outcome.CONVERGED)]
    found = judged([*arm("control", 1, **fields), *unknown], arm("arch", 5), "better_loss")
    assert (found.state, found.p) == (State.UNTESTABLE, None)


def test_a_margin_of_zero_allows_equal_losses_and_none_can_not_be_tested():
    arms = arm("control", 5), arm("arch", 5)
    assert judged(*arms, "loss_within_margin", rules=Rules(margin=0.0)).state is State.MET
    none = judged(*arms, "loss_within_margin", rules=Rules(margin=None))
    assert (none.state, none.detail.rpartition("; ")[2]) == (State.UNTESTABLE, "the study names no margin")


def test_other_arms_stand_where_one_has_too_few():
    verdict = verdict_of(stage("a", arm("control", 7, 3), arm("arch", 2), arm("clip", 10)))
    assert criterion(verdict, "a", "arch", "fewer_failures").state is State.UNTESTABLE
    assert criterion(verdict, "a", "clip", "fewer_failures").state is State.MET


# Their tests


def test_rates_are_tested_with_boschloo():
    found = judged(arm("control", 7, 3), arm("arch", 10), "fewer_failures")
    assert found.test == "Boschloo"
    assert found.p == pytest.approx(0.058, abs=5e-4)
    assert found.supported is False
    assert found.effect == pytest.approx(0.3)
    assert found.ci == newcombe_difference(Rate(3, 10), Rate(0, 10))
    assert "0/10 failed (at most 26 %), control 3/10 failed" in found.detail


def test_losses_are_tested_with_mann_whitney():
    control, arch = arm("control", 6, loss=1.0), arm("arch", 6, loss=0.98)
    found = judged(control, arch, "better_loss")
    theirs, ours = ([t.loss for t in trials] for trials in (control, arch))
    assert found.p == pytest.approx(scipy.stats.mannwhitneyu(ours, theirs, alternative="less", method="exact").pvalue)
    ratios = sorted(mine / yours for mine in ours for yours in theirs)
    assert found.effect == pytest.approx(math.sqrt(ratios[17] * ratios[18]))
    within = judged(control, arch, "loss_within_margin")
    shifted = [loss / 1.1 for loss in ours]
    assert within.p == pytest.approx(
        scipy.stats.mannwhitneyu(shifted, theirs, alternative="less", method="exact").pvalue
    )
    assert within.p < found.p


def test_holm_over_every_arm_of_the_stage_tested_or_not_with_a_part_or_not():
    p_arch, p_clip = (fewer_failures_p(Rate(5, 10), Rate(failed, 10)) for failed in (0, 1))
    both = verdict_of(stage("a", arm("control", 5, 5), arm("arch", 10), arm("clip", 9, 1)))
    assert criterion(both, "a", "arch", "fewer_failures").p == pytest.approx(2 * p_arch)
    assert criterion(both, "a", "clip", "fewer_failures").p == pytest.approx(max(p_clip, 2 * p_arch))
    few = verdict_of(stage("a", arm("control", 5, 5), arm("arch", 10), arm("clip", 2)))
    assert criterion(few, "a", "arch", "fewer_failures").p == pytest.approx(2 * p_arch)
    other = verdict_of(stage("a", arm("control", 5, 5), arm("arch", 10), arm("other", running=3)), roles=ONE)
    assert criterion(other, "a", "arch", "fewer_failures").p == pytest.approx(2 * p_arch)


def test_p_is_the_larger_of_the_observed_and_the_worst_case():
    """None of 13 failed, 7 were killed: had they failed, it would be 7 of 20."""
    found = judged(arm("control", 8, 12), arm("arch", 13, oom=7), "fewer_failures")
    worst = fewer_failures_p(Rate(12, 20), Rate(7, 20))
    assert worst > 20 * fewer_failures_p(Rate(12, 20), Rate(0, 13))
    assert (found.state, found.p, found.supported) == (State.MET, pytest.approx(worst), False)


def test_over_all_trials_where_control_has_fewer_than_three_successes():
    found = judged(arm("control", 0, 6), arm("arch", 6), "better_loss")
    worst = "Mann-Whitney, counting a failed run as worst of all"
    assert (found.test, found.state, found.supported) == (worst, State.MET, True)
    assert found.p == pytest.approx(1 / math.comb(12, 6))  # the arm holds all six best places
    assert judged(arm("control", 2, 4), arm("arch", 6), "better_loss").test == found.test


def test_lengths_that_differ_can_not_be_compared_unless_the_study_says_so():
    short = [replace(t, last_step=50) for t in arm("arch", 10)]
    found = judged(arm("control", 5, 5), short, "fewer_failures")
    assert (found.state, found.detail) == (
        State.UNTESTABLE,
        "control ran 99 steps, arch 50: they can't be compared",
    )
    free = Rules(free_lengths=True)
    assert judged(arm("control", 5, 5), short, "fewer_failures", rules=free).state is State.MET
    scheduled = [replace(t, scheduled_steps=99) for t in short]  # stopped early of its own accord
    assert judged(arm("control", 5, 5), scheduled, "fewer_failures").state is State.MET
    unknown = [replace(t, last_step=None) for t in short]
    assert judged(arm("control", 5, 5), unknown, "fewer_failures").state is State.MET


def test_later_looks_test_at_a_quarter_of_alpha_unless_they_were_planned():
    arms = arm("control", 5, 5), arm("arch", 10)  # p = 0.006
    assert judged(*arms, "fewer_failures", rules=Rules(look=2)).supported is True
    assert judged(*arms, "fewer_failures", rules=Rules(look=3)).supported is False
    assert judged(*arms, "fewer_failures", rules=Rules(look=3, looks_planned=True)).supported is True
    assert Rules(look=1000).level == 0  # however many a table names


def test_missing_seeds_count_as_pending():
    gone = [t for t in arm("arch", 20) if t.seed not in range(3, 12)]
    found = judged(arm("control", 10, 10), gone, "fewer_failures")
    assert found.state is State.MET  # 9 of 20 against 10 of 20 in the worst case
    assert found.supported is False
    lost = [("control", 2), ("arch", 4)]
    rows = [t for t in (*arm("control", 9), *arm("arch", 9)) if (t.arm, t.seed) not in lost]
    assert Stage("a", tuple(rows)).all_missing == {"control": (2,), "arch": (4,)}
    others = [replace(t, seed=2 * t.seed + (t.arm == "arch")) for t in (*arm("control", 9), *arm("arch", 9))]
    assert Stage("a", tuple(others)).all_missing == {}  # seeds of their own, not gaps
    known = Stage("a", (*arm("control", 5, 5), *arm("arch", 5)), {"arch": (5, 6, 7, 8, 9)})
    assert criterion(verdict_of(known, roles=ONE), "a", "arch", "fewer_failures").state is State.UNTESTABLE


def test_an_arm_without_success_gets_no_support():
    found = judged(arm("control", 6), arm("arch", 0, 6), "better_loss")
    assert (found.state, found.supported, found.p) == (State.NOT_MET, False, 1.0)


def test_values_that_are_not_all_above_zero_compare_by_differences():
    found = judged(arm("control", 5), arm("arch", 5, loss=0.0), "better_loss")
    assert (found.state, found.is_ratio, found.effect) == (State.MET, False, pytest.approx(-1.0))
    assert found.p == pytest.approx(1 / math.comb(10, 5))
    apart = verdict_of(stage("a", arm("control", 5, loss=1e-300), arm("arch", 5, loss=1e299)), roles=Roles("control"))
    assert criterion(apart, "a", "arch", "better_loss").is_ratio is False  # no float is the ratio
    assert apart.answer("arch").name == "harms"
    assert apart.arms[1].matched_ratio is None


# Verdicts and their support

GOLD_A = [arm("control", 4, 16), arm("arch", 20, loss=0.5), arm("clip", 4, 16)]
GOLD_B = stage("b", arm("control", 0, 20), arm("arch", 20))


def test_a_gold_that_its_tests_support():
    assert (verdict_of(stage("a", *GOLD_A), GOLD_B).name, verdict_of(stage("a", *GOLD_A), GOLD_B).supported) == (
        GOLD,
        True,
    )


def test_a_few_seeds_give_gold_without_support():
    a = stage("a", arm("control", 7, 3), arm("arch", 10, loss=0.5))
    b = stage("b", arm("control", 0, 10), arm("arch", 10))
    verdict = verdict_of(a, b, ONE)
    assert (verdict.name, verdict.supported, verdict.headline) == (GOLD, False, "leaning GOLD (could be luck)")
    assert verdict.exit_code == 30


@pytest.mark.parametrize(("quality", "supported"), [(0.75, True), (0.72, False), (None, True)])
def test_a_worse_quality_is_no_support(quality, supported):
    rules = Rules(measures={"sharpness": Measure(higher_is_better=True, margin=0.02)})
    measured = {} if quality is None else {"sharpness": quality}
    a = stage("a", arm("control", 4, 16, measures={"sharpness": 0.77}), arm("arch", 20, loss=0.5, measures=measured))
    verdict = verdict_of(a, GOLD_B, ONE, rules=rules)
    assert (verdict.name, verdict.supported) == (GOLD, supported)
    assert ("its sharpness is shown to be worse" in verdict.reason) is not supported


@pytest.mark.parametrize(("n", "supported"), [(10, False), (60, True)])
def test_pivot_is_supported_where_a_reduction_by_a_fifth_is_ruled_out(n, supported):
    half = [arm(name, n // 2, n // 2) for name in ("control", "arch", "clip")]
    assert (newcombe_difference(Rate(n // 2, n), Rate(n // 2, n)).high < 0.2) is supported
    verdict = verdict_of(stage("a", *half), stage("b", *half))
    assert (verdict.name, verdict.supported) == (PIVOT, supported)


def test_silver_rests_on_the_clipping_arm():
    a = stage("a", arm("control", 10, 10), arm("arch", 10, 10), arm("clip", 20, loss=0.9))
    verdict = verdict_of(a)
    assert (verdict.name, verdict.supported) == (SILVER, True)


# Higher is better


def test_a_metric_that_is_better_when_higher_compares_by_differences():
    """0.90 against 0.80, and 0.75, which is within 0.1, and 0.69, which is not."""
    rules = Rules(higher_is_better=True, margin=0.1)
    control = arm("control", 6, loss=0.80)

    def state(value, name):
        return judged(control, arm("arch", 6, loss=value), name, rules=rules).state

    assert [state(v, "better_loss") for v in (0.90, 0.80, 0.75)] == [State.MET, State.NOT_MET, State.NOT_MET]
    assert [state(v, "loss_within_margin") for v in (0.90, 0.70, 0.69)] == [State.MET, State.MET, State.NOT_MET]
    up = judged(control, arm("arch", 6, loss=0.90), "better_loss", rules=rules)
    assert up.p == pytest.approx(1 / math.comb(12, 6))
    assert up.effect == pytest.approx(0.10, rel=0.01)
    assert judged(control, arm("arch", 6, loss=0.70), "better_loss", rules=rules).p == pytest.approx(1.0)


@pytest.mark.parametrize(
    "control", [arm("control", 8, 2, loss=-3.0, spread=0.05), arm("control", 0, 3, oom=3), arm("control", 2, 3, oom=1)]
)
def test_negating_a_metric_and_its_direction_changes_no_answer(control):
    control = [replace(t, loss=-abs(t.loss) if t.loss else None) for t in control]
    lower = (control, arm("arch", 7, 1, loss=-3.5, spread=0.06))
    higher = [[replace(t, loss=t.loss and -t.loss) for t in x] for x in lower]
    for name in ("better_loss", "loss_within_margin", "fewer_failures"):
        down, up = judged(*lower, name), judged(*higher, name, rules=Rules(higher_is_better=True))
        assert (up.state, up.p) == (down.state, down.p)
        assert abs(up.effect or 0) == pytest.approx(abs(down.effect or 0))


# Stage B's reports


def test_stage_b_reports_gradients_and_stage_as_quality_without_deciding_on_them():
    a = stage("a", arm("control", 5, loss=1.0, measures={"q": 0.8}), arm("arch", 5, loss=1.0, measures={"q": 0.8}))
    b = stage(
        "b",
        arm("control", 5, loss=1.1, measures={"q": 0.9}, grad_ratio=12.0),
        arm("arch", 5, loss=0.9, measures={"q": 0.8}, grad_ratio=10.0),
    )
    verdict = verdict_of(a, b, ONE, rules=Rules(measures={"q": Measure()}))
    reports = {(c.arm, c.name): (c.state, c.decides) for c in verdict.criteria if not c.decides}
    assert reports == {
        ("control", "grad_bounded"): (State.NOT_MET, False),
        ("arch", "grad_bounded"): (State.MET, False),
        ("control", "matches_stage_a"): (State.NOT_MET, False),
        ("arch", "matches_stage_a"): (State.MET, False),
    }
