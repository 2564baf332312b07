import math
from itertools import combinations

import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st
from median_interval import median_interval

from fnostab.errors import ConfigError, DecisionError
from fnostab.stats.losses import (
    hodges_lehmann_ratio,
    hodges_lehmann_shift,
    lower_loss_p,
    matched_ratio,
)
from fnostab.stats.ranks import interval_depth, smaller_p

# Permeability constants of the chorioamnion at term and at 12 to 26 weeks: Hollander and Wolfe, table 4.1
AT_TERM = np.array([0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46])
EARLIER = np.array([1.15, 0.88, 0.90, 0.74, 1.21])

few_losses = st.lists(st.sampled_from([0.01, 0.02, 0.03, 0.05]), min_size=1, max_size=5)


def brute_force_p(first, second):
    """Share of all ways to draw the first sample from the pooled one with no larger rank sum."""
    ranks = scipy.stats.rankdata([*first, *second])
    sums = [sum(draw) for draw in combinations(ranks, len(first))]
    return np.mean(np.array(sums) <= ranks[: len(first)].sum() + 1e-9)


def test_hollander_and_wolfes_example():
    assert smaller_p(EARLIER, AT_TERM) == pytest.approx(0.1272, abs=5e-5)
    effect = hodges_lehmann_ratio(control=np.exp(AT_TERM), arm=np.exp(EARLIER))
    assert math.log(effect.value) == pytest.approx(-0.305)
    assert np.log(effect.interval) == pytest.approx([-0.76, 0.15])


@given(few_losses, few_losses)
def test_p_with_ties_counts_all_rearrangements(first, second):
    assert smaller_p(np.array(first), np.array(second)) == pytest.approx(brute_force_p(first, second))


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 1000))
def test_p_without_ties_is_scipys_exact(m, n, seed):
    values = np.random.default_rng(seed).permutation(m + n).astype(float)
    oracle = scipy.stats.mannwhitneyu(values[:m], values[m:], alternative="less", method="exact").pvalue
    assert smaller_p(values[:m], values[m:]) == pytest.approx(oracle)


def test_exact_p_and_normal_approximation_meet():
    rng = np.random.default_rng(0)
    first, second = np.round(rng.normal(size=50), 1), np.round(rng.normal(0.3, size=50), 1)
    approximate = scipy.stats.mannwhitneyu(first, second, alternative="less", method="asymptotic").pvalue
    assert smaller_p(first, second) == pytest.approx(approximate, abs=1e-3)
    assert smaller_p(np.append(first, 0.0), second) < 1  # one more value: the approximation itself


def test_large_samples_of_identical_values_give_p_one():
    assert smaller_p(np.ones(200), np.ones(200)) == 1.0


@pytest.mark.parametrize(
    ("control", "arm", "p"),
    [
        ([0.02], [0.01], 0.5),
        ([0.02, 0.03, 0.04], [0.01, 0.011, 0.012], 1 / 20),
        ([0.02, 0.02, 0.02], [0.01, 0.01, 0.01], 1 / 20),
        ([0.01, 0.01], [0.01, 0.01, 0.01], 1.0),
        ([], [0.01], 1.0),
        ([0.01], [], 1.0),
    ],
)
def test_lower_loss_by_hand(control, arm, p):
    assert lower_loss_p(control, arm) == pytest.approx(p)


def test_margin_shows_non_inferiority_that_equality_does_not():
    control = [0.0100, 0.0101, 0.0102, 0.0103, 0.0104]
    arm = [0.01005, 0.01015, 0.01025, 0.01035, 0.01045]
    assert lower_loss_p(control, arm) > 0.5
    assert lower_loss_p(control, arm, margin=1.1) == pytest.approx(1 / 252)
    shifted = np.log(arm) - math.log(1.1)
    assert lower_loss_p(control, arm, margin=1.1) == smaller_p(shifted, np.log(control))


@settings(max_examples=30)
@given(few_losses, few_losses)
def test_a_wider_margin_never_raises_p(control, arm):
    assert lower_loss_p(control, arm, margin=1.3) <= lower_loss_p(control, arm, margin=1.1) + 1e-12


@pytest.mark.parametrize(("m", "n", "depth"), [(3, 3, 0), (3, 4, 0), (4, 4, 1), (5, 5, 3), (10, 10, 24), (7, 5, 6)])
def test_depth_of_the_interval_is_the_tables_critical_value_plus_one(m, n, depth):
    # two-sided 5 % critical values of U: none, none, 0, 2, 23, 5
    assert interval_depth(m, n, 0.95) == depth


@settings(max_examples=40)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 10_000))
def test_interval_holds_the_ratios_that_the_test_does_not_reject(m, n, seed):
    rng = np.random.default_rng(seed)
    control, arm = np.exp(rng.normal(size=n)), np.exp(rng.normal(size=m))
    effect = hodges_lehmann_ratio(control, arm)
    if effect.interval is None:
        assert 1 / math.comb(m + n, n) > 0.025
        return
    low, high = effect.interval
    assert low <= effect.value <= high
    assert lower_loss_p(control, arm, margin=high * 1.0001) <= 0.025 + 1e-12
    assert lower_loss_p(control, arm, margin=high * 0.9999) > 0.025
    swapped = hodges_lehmann_ratio(arm, control)
    assert (swapped.value, *swapped.interval) == pytest.approx((1 / effect.value, 1 / high, 1 / low))


@pytest.mark.parametrize(("control", "arm"), [([0.02], [0.01]), ([0.02, 0.02, 0.02], [0.01, 0.01])])
def test_too_few_losses_have_a_ratio_without_an_interval(control, arm):
    effect = hodges_lehmann_ratio(control, arm)
    assert effect.value == pytest.approx(0.5)
    assert effect.interval is None


def test_no_losses_no_ratio_and_identical_losses_a_ratio_of_one():
    assert hodges_lehmann_ratio([], [0.01]) is None
    effect = hodges_lehmann_ratio([0.01] * 5, [0.01] * 5)
    assert (effect.value, *effect.interval) == (1.0, 1.0, 1.0)


def test_large_samples_have_an_interval_near_the_normal_one():
    rng = np.random.default_rng(1)
    control, arm = np.exp(rng.normal(size=150)), np.exp(rng.normal(size=150))
    assert np.diff(np.log(hodges_lehmann_ratio(control, arm).interval)) == pytest.approx(
        2 * 1.96 * math.sqrt(2 / 150) * math.sqrt(math.pi / 3), rel=0.2
    )


def test_matched_ratio_pairs_by_seed_and_takes_the_geometric_median():
    control = {0: 0.01, 1: 0.02, 2: 0.04, 7: 0.5}
    arm = {2: 0.01, 1: 0.02, 0: 0.02, 9: 0.1}
    assert matched_ratio(control, arm).ratio == pytest.approx(1.0)  # 2, 1, 1/4
    assert matched_ratio(control, arm).n_pairs == 3
    two = matched_ratio({0: 1.0, 1: 1.0}, {0: 4.0, 1: 1.0})
    assert two.ratio == pytest.approx(2.0)  # sqrt(4 * 1), not 2.5


def test_matched_ratio_without_a_common_seed():
    assert matched_ratio({0: 0.01}, {1: 0.01}).ratio is None
    assert matched_ratio({}, {}).n_pairs == 0


def test_median_interval_is_scipys_bca():
    values = np.random.default_rng(3).lognormal(size=20)
    oracle = scipy.stats.bootstrap((values,), np.median, rng=np.random.default_rng(0)).confidence_interval
    assert median_interval(values) == pytest.approx(tuple(oracle))
    assert median_interval(values) == median_interval(values)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("values", [[1, 2], [1, 2, 3], [1, 1, 1, 1, 2], [1, 1, 2, 2], [1, 1, 1, 1, 1, 1, 1, 1, 9]])
def test_median_interval_of_few_or_tied_values_stays_within_them(values):
    low, high = median_interval(values)
    assert min(values) <= low <= np.median(values) <= high <= max(values)


def test_median_interval_at_its_ends():
    assert median_interval([]) is None
    assert median_interval([0.3]) is None
    assert median_interval([0.3, 0.3, 0.3]) == (0.3, 0.3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_losses_that_are_not_finite_are_named(bad):
    for call in (
        lambda: hodges_lehmann_ratio([bad], [0.1]),
        lambda: matched_ratio({0: bad}, {0: 0.1}),
        lambda: median_interval([0.1, bad]),
    ):
        with pytest.raises(DecisionError, match=str(bad)):
            call()


def test_ratios_need_losses_above_zero_and_margins_too():
    with pytest.raises(DecisionError, match=r"loss 0\.0"):
        hodges_lehmann_ratio([0.1, 0.0], [0.1])
    with pytest.raises(ConfigError, match="margin 0"):
        lower_loss_p([0.1], [0.1], margin=0)
    with pytest.raises(DecisionError, match=r"\(n,\)"):
        median_interval([[0.1]])


def test_many_pairs_give_the_same_ratio_without_holding_them(monkeypatch):
    rng = np.random.default_rng(0)
    control, arm = rng.lognormal(size=150).round(2) + 0.01, rng.lognormal(0.1, size=120)
    held = hodges_lehmann_ratio(control, arm)
    monkeypatch.setattr("fnostab.stats.ranks.PAIRS_LIMIT", 0)
    found = hodges_lehmann_ratio(control, arm)
    assert found.value == pytest.approx(held.value, rel=1e-12)
    assert found.interval == pytest.approx(held.interval, rel=1e-12)


def test_few_values_against_many_are_compared_exactly():
    assert smaller_p(np.arange(3.0), np.arange(3.0, 42)) == pytest.approx(1 / math.comb(42, 3))
    assert smaller_p(np.arange(3.0), np.arange(3.0, 300)) == pytest.approx(1 / math.comb(300, 3))
    assert smaller_p(np.arange(3.0, 300), np.arange(3.0)) == pytest.approx(1.0)
    assert smaller_p(np.arange(297.0), np.arange(297.0, 300)) == pytest.approx(1 / math.comb(300, 3))


def test_one_value_against_a_hundred_has_an_estimate_and_its_interval():
    many = np.linspace(0.1, 0.2, 100)
    effect = hodges_lehmann_ratio(control=many, arm=[0.3])
    assert effect.value == pytest.approx(0.3 / math.sqrt(many[49] * many[50]))
    assert effect.interval == pytest.approx((0.3 / many[98], 0.3 / many[1]))  # 2/101 is below 0.025
    assert lower_loss_p(many, [0.05]) == pytest.approx(1 / 101)


def test_values_that_tie_after_a_shift_are_ties():
    assert lower_loss_p([0.1] * 10, [0.11] * 20, margin=1.1) == 1.0
    assert lower_loss_p([0.2] * 10, [0.3] * 20, shift=0.1) == 1.0
    assert lower_loss_p([0.0] * 10, [0.1] * 20, shift=0.1) == 1.0
    assert lower_loss_p([0.1] * 10, [0.1099] * 20, margin=1.1) < 1e-6


def test_failures_tie_with_one_another_behind_every_loss():
    assert lower_loss_p([math.inf] * 4, [0.1, 0.2, math.inf, math.inf]) == pytest.approx(
        brute_force_p([1, 2, 3, 3], [3] * 4)
    )
    best = [-math.inf, -math.inf, math.inf, math.inf]  # of control, had two of its trials succeeded
    assert lower_loss_p(best, [0.1, 0.2, 0.3]) == pytest.approx(brute_force_p([1, 2, 3], [0, 0, 4, 4]))
    with pytest.raises(DecisionError, match="NaN"):
        lower_loss_p([0.1], [math.nan])


def test_differences_of_any_sign_have_an_interval():
    effect = hodges_lehmann_shift([-3.0, -2.0, -1.0, 0.0], [-2.0, -1.0, 0.0, 1.0])
    assert (effect.value, effect.interval) == (1.0, (-2.0, 4.0))
