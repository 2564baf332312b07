"""Criteria on observed numbers, and whether their tests support them."""

import math

import pytest
import scipy
from decision_helpers import GOLD, INCONCLUSIVE, PIVOT, SILVER, arm, criterion, stage, verdict_of

from fnostab.decision import Roles, Rules, State
from fnostab.record.outcomes import Outcome
from fnostab.record.table import TrialRow
from fnostab.stats.proportions import fewer_failures_p, newcombe_difference

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
    assert found.detail.endswith("2 excluded trials could change it (exclusions)")
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
        (arm("control", 0, 5, oom=1), arm("arch", 5), State.UNTESTABLE, State.UNTESTABLE),  # it might have succeeded
        (arm("control", 2), arm("arch", 5), State.UNTESTABLE, State.UNTESTABLE),
    ],
)
def test_losses(control, arch, better, within):
    assert judged(control, arch, "better_loss").state is better
    assert judged(control, arch, "loss_within_10pct").state is within


def test_successes_of_unknown_loss_are_not_taken_for_failures():
    unknown = [TrialRow("arch", seed, Outcome.CONVERGED) for seed in range(5)]
    found = judged(arm("control", 5), unknown, "better_loss")
    assert found.state is State.UNTESTABLE
    assert "the losses of the successes are not known" in found.detail
    assert "n_ok 5/5" in found.detail


def test_a_margin_of_one_allows_equal_losses():
    rules = Rules(loss_margin=1.0)
    assert judged(arm("control", 5), arm("arch", 5), "loss_within_10pct", rules=rules).state is State.MET


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
    assert found.ci == newcombe_difference(3, 10, 0, 10)
    assert "0/10 failed (below 26% at 95 %), control 3/10 failed" in found.detail


def test_losses_are_tested_with_mann_whitney():
    control, arch = arm("control", 6, loss=1.0), arm("arch", 6, loss=0.98)
    found = judged(control, arch, "better_loss")
    theirs, ours = ([t.loss for t in trials] for trials in (control, arch))
    assert found.p == pytest.approx(scipy.stats.mannwhitneyu(ours, theirs, alternative="less", method="exact").pvalue)
    ratios = sorted(mine / yours for mine in ours for yours in theirs)
    assert found.effect == pytest.approx(math.sqrt(ratios[17] * ratios[18]))
    within = judged(control, arch, "loss_within_10pct")
    shifted = [loss / 1.1 for loss in ours]
    assert within.p == pytest.approx(
        scipy.stats.mannwhitneyu(shifted, theirs, alternative="less", method="exact").pvalue
    )
    assert within.p < found.p


def test_holm_over_the_candidates_that_can_be_tested():
    rates = [arm("control", 5, 5), arm("arch", 10), arm("clip", 9, 1)]
    p_arch, p_clip = fewer_failures_p(5, 10, 0, 10), fewer_failures_p(5, 10, 1, 10)
    both = verdict_of(stage("a", *rates))
    assert criterion(both, "a", "arch", "fewer_failures").p == pytest.approx(2 * p_arch)
    assert criterion(both, "a", "clip", "fewer_failures").p == pytest.approx(max(p_clip, 2 * p_arch))
    one = verdict_of(stage("a", *rates[:2], arm("clip", 2)))
    assert criterion(one, "a", "arch", "fewer_failures").p == pytest.approx(p_arch)


def test_arms_without_a_part_do_not_cost_the_candidates_anything():
    trials = [arm("control", 5, 5), arm("arch", 10), arm("other", 10)]
    with_other = verdict_of(stage("a", *trials), roles=ONE)
    assert criterion(with_other, "a", "arch", "fewer_failures").p == pytest.approx(fewer_failures_p(5, 10, 0, 10))


def test_worst_rank_where_control_has_no_success():
    found = judged(arm("control", 0, 6), arm("arch", 6), "better_loss")
    assert (found.test, found.state, found.supported) == ("worst rank", State.MET, True)
    assert found.p == pytest.approx(1 / math.comb(12, 6))  # the arm holds all six best places


def test_an_arm_without_success_gets_no_support():
    found = judged(arm("control", 6), arm("arch", 0, 6), "better_loss")
    assert (found.state, found.supported, found.p) == (State.NOT_MET, False, 1.0)


def test_a_loss_of_zero_has_no_ratio_and_is_tested_all_the_same():
    found = judged(arm("control", 5), arm("arch", 5, loss=0.0), "better_loss")
    assert (found.state, found.effect, found.ci) == (State.MET, None, None)
    assert found.p == pytest.approx(1 / math.comb(10, 5))


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
    assert (verdict.name, verdict.supported) == (GOLD, False)
    required = verdict_of(a, b, ONE, require_support=True)
    assert (required.name, required.supported, required.winner) == (INCONCLUSIVE, None, None)
    assert required.reason == (
        "GOLD on the observed numbers, but unsupported: fewer_failures of arch in Stage A (p = 0.0579)"
    )
    assert "more seeds per arm" in required.next_step
    assert verdict_of(stage("a", *GOLD_A), GOLD_B, require_support=True).name is GOLD


@pytest.mark.parametrize(("ssim", "supported"), [(0.75, True), (0.72, False), (None, True)])
def test_a_worse_reconstruction_is_no_support(ssim, supported):
    # 0.77 - 0.02 is 0.75
    a = stage("a", arm("control", 4, 16, ssim_amp=0.77), arm("arch", 20, loss=0.5, ssim_amp=ssim))
    verdict = verdict_of(a, GOLD_B, ONE)
    assert (verdict.name, verdict.supported) == (GOLD, supported)
    assert ("(quality)" in criterion(verdict, "a", "arch", "no_nonfinite").detail) is not supported


@pytest.mark.parametrize(("n", "supported"), [(10, False), (60, True)])
def test_pivot_is_supported_where_a_reduction_by_a_fifth_is_ruled_out(n, supported):
    half = [arm("control", n // 2, n // 2), arm("arch", n // 2, n // 2), arm("clip", n // 2, n // 2)]
    assert (newcombe_difference(n // 2, n, n // 2, n).high < 0.2) is supported
    verdict = verdict_of(stage("a", *half), stage("b", *half))
    assert (verdict.name, verdict.supported) == (PIVOT, supported)
    if not supported:
        required = verdict_of(stage("a", *half), stage("b", *half), require_support=True)
        assert required.name is INCONCLUSIVE
        assert "lower by 0.2 is not ruled out" in required.reason


def test_silver_rests_on_the_clipping_arm():
    a = stage("a", arm("control", 10, 10), arm("arch", 10, 10), arm("clip", 20, loss=0.9))
    verdict = verdict_of(a)
    assert (verdict.name, verdict.supported) == (SILVER, True)


# Higher is better


def test_everything_is_mirrored_for_a_metric_that_is_better_when_higher():
    """Hand check: SSIM 0.90 against 0.80, and 0.75, which is within 10 % (0.80 / 1.1 = 0.727), and 0.70, not."""
    rules = Rules(higher_is_better=True)
    control = arm("control", 6, loss=0.80)

    def state(value, name):
        return judged(control, arm("arch", 6, loss=value), name, rules=rules).state

    assert [state(v, "better_loss") for v in (0.90, 0.80, 0.75)] == [State.MET, State.NOT_MET, State.NOT_MET]
    assert [state(v, "loss_within_10pct") for v in (0.90, 0.75, 0.70)] == [State.MET, State.MET, State.NOT_MET]
    up = judged(control, arm("arch", 6, loss=0.90), "better_loss", rules=rules)
    assert up.p == pytest.approx(1 / math.comb(12, 6))
    assert up.effect == pytest.approx(0.90 / 0.80, rel=0.01)
    down = judged(control, arm("arch", 6, loss=0.70), "better_loss", rules=rules)
    assert down.p == pytest.approx(1.0)


def test_mirroring_losses_mirrors_the_tests():
    lower = (arm("control", 8, 2, loss=1.0, spread=0.05), arm("arch", 7, 1, loss=0.95, spread=0.06))
    higher = [[TrialRow(t.arm, t.seed, t.outcome, t.loss and 1 / t.loss, t.failure_step) for t in x] for x in lower]
    for name in ("better_loss", "loss_within_10pct"):
        down, up = judged(*lower, name), judged(*higher, name, rules=Rules(higher_is_better=True))
        assert (up.state, up.p) == (down.state, pytest.approx(down.p))
        assert up.effect == pytest.approx(1 / down.effect)
    ranks = [
        verdict_of(stage("a", *trials), roles=ONE, rules=Rules(higher_is_better=up)).arms[1].worst_rank_p
        for trials, up in ((lower, False), (higher, True))
    ]
    assert ranks[0] == pytest.approx(ranks[1])


# Stage B's reports


def test_stage_b_reports_gradients_and_stage_as_quality_without_deciding_on_them():
    a = stage("a", arm("control", 5, loss=1.0, ssim_amp=0.8), arm("arch", 5, loss=1.0, ssim_amp=0.8))
    b = stage(
        "b",
        arm("control", 5, loss=1.1, ssim_amp=0.9, grad_ratio=12.0),
        arm("arch", 5, loss=0.9, ssim_amp=0.8, grad_ratio=10.0),
    )
    verdict = verdict_of(a, b, ONE)
    reports = {(c.arm, c.name): (c.state, c.decides) for c in verdict.criteria if not c.decides}
    assert reports == {
        ("control", "grad_bounded"): (State.NOT_MET, False),
        ("arch", "grad_bounded"): (State.MET, False),
        ("control", "matches_stage_a"): (State.NOT_MET, False),
        ("arch", "matches_stage_a"): (State.MET, False),
    }
