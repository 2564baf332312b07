import math

import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st

from fnostab.errors import ConfigError, DecisionError
from fnostab.stats.boschloo import RATES, binomial_pmf, boschloo_p, rejection_region, supremum, tables_up_to
from fnostab.stats.design import (
    boschloo_power,
    predictive_power,
    seeds_for_loss_ratio,
    seeds_for_rates,
)
from fnostab.stats.proportions import fewer_failures_p
from fnostab.stats.ranks import smaller_p
from fnostab.stats.rate import Rate

rate = st.floats(0, 1)


@pytest.mark.parametrize(("control_n", "arm_n"), [(1, 1), (3, 3), (5, 8), (10, 10), (12, 7), (16, 16)])
@pytest.mark.parametrize("alpha", [0.05, 0.025])
def test_region_holds_the_tables_that_scipy_rejects(control_n, arm_n, alpha):
    rejected = [
        [fewer_failures_p(Rate(a, control_n), Rate(b, arm_n)) <= alpha for b in range(arm_n + 1)]
        for a in range(control_n + 1)
    ]
    np.testing.assert_array_equal(rejection_region(alpha, control_n=control_n, arm_n=arm_n), rejected)


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.01, 0.025, 0.05, 0.1]))
def test_region_keeps_alpha_at_every_common_rate_and_contains_fishers(control_n, arm_n, alpha):
    region = rejection_region(alpha, control_n=control_n, arm_n=arm_n)
    rates = np.linspace(0, 1, 2001)
    size = ((binomial_pmf(control_n, rates) @ region) * binomial_pmf(arm_n, rates)).sum(axis=1)
    assert size.max() <= alpha * (1 + 1e-6)
    a, b = np.indices(region.shape)
    fisher = scipy.stats.hypergeom.cdf(b, control_n + arm_n, a + b, arm_n)
    assert region[fisher <= alpha * (1 - 1e-9)].all()


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_p_value_is_scipys(control_n, arm_n, data):
    counts = (data.draw(st.integers(0, control_n)), control_n, data.draw(st.integers(0, arm_n)), arm_n)
    if counts[0] + counts[2] not in (0, control_n + arm_n):
        assert boschloo_p(Rate(*counts[:2]), Rate(*counts[2:])) == pytest.approx(
            fewer_failures_p(Rate(*counts[:2]), Rate(*counts[2:])), rel=1e-4
        )


@settings(max_examples=50)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_tables_up_to_a_p_value_are_those_that_fishers_test_counts(control_n, arm_n, critical):
    failures = np.indices((control_n + 1, arm_n + 1))
    fisher = scipy.stats.hypergeom.cdf(failures[1], control_n + arm_n, failures.sum(axis=0), arm_n)
    counts = tables_up_to(critical, control_n=control_n, arm_n=arm_n)
    np.testing.assert_array_equal(counts, (fisher <= critical).sum(axis=1))


@pytest.mark.parametrize("counts", [(120, 200, 100, 200), (70, 200, 40, 190), (3, 210, 0, 190)])
def test_p_value_is_scipys_where_it_takes_over(counts):
    assert boschloo_p(Rate(*counts[:2]), Rate(*counts[2:])) == pytest.approx(
        fewer_failures_p(Rate(*counts[:2]), Rate(*counts[2:])), rel=1e-5
    )


def test_binomial_pmf_is_scipys():
    np.testing.assert_allclose(
        binomial_pmf(30, [0.0, 0.3, 1.0]), scipy.stats.binom.pmf(np.arange(31), 30, [[0.0], [0.3], [1.0]]), atol=1e-14
    )


def test_supremum_lies_between_grid_points():
    assert supremum(3 - (RATES - 0.2345) ** 2) == pytest.approx(3, abs=1e-8)


def test_power_against_an_arm_that_never_fails_by_hand():
    # against 0/10 four failures of ten are needed (3/10 has p = 0.058), and P(X >= 4) = 0.3504
    assert boschloo_power(0.3, 0.0, 10) == pytest.approx(scipy.stats.binom.sf(3, 10, 0.3))
    assert boschloo_power(0.3, 0.0, 10) == pytest.approx(0.3504, abs=5e-5)


@settings(max_examples=40)
@given(rate, rate, st.integers(1, 25))
def test_power_is_a_probability_and_at_equal_rates_within_alpha(control_rate, arm_rate, n):
    assert -1e-12 <= boschloo_power(control_rate, arm_rate, n) <= 1 + 1e-12
    assert boschloo_power(control_rate, control_rate, n) <= 0.05 * (1 + 1e-6)


@settings(max_examples=40)
@given(rate, rate, rate, st.integers(1, 25))
def test_power_falls_as_the_arm_gets_worse(control_rate, arm_rate, worse, n):
    low, high = sorted((arm_rate, worse))
    assert boschloo_power(control_rate, high, n) <= boschloo_power(control_rate, low, n) + 1e-12


def test_seeds_for_a_failure_in_three_against_none():
    assert seeds_for_rates(0.3, 0.0) == 18
    assert boschloo_power(0.3, 0.0, 17) == pytest.approx(0.7981, abs=5e-5)
    assert boschloo_power(0.3, 0.0, 18) == pytest.approx(0.8354, abs=5e-5)


def test_seeds_with_two_candidates_under_holm():
    # five failures against none are significant at 0.025 from 12 seeds on, and P(X >= 5 of 21) = 0.8016
    assert seeds_for_rates(0.3, 0.0, candidates=2) == 21
    assert boschloo_power(0.3, 0.0, 21, 0.025) == pytest.approx(scipy.stats.binom.sf(4, 21, 0.3))
    assert boschloo_power(0.3, 0.0, 20, 0.025) < 0.8


def test_no_plan_has_fewer_seeds_than_a_decision_needs():
    assert boschloo_power(1, 0, 2, alpha=0.1) == pytest.approx(1)  # 2 of 2 against 0 of 2: p = 1/16
    assert seeds_for_rates(1, 0, alpha=0.1) == 3
    assert seeds_for_loss_ratio(0.01, 0.1, alpha=0.4, power=0.5) == 3


def test_no_number_of_seeds_shows_an_arm_better_that_is_not():
    assert seeds_for_rates(0.3, 0.3) is None
    assert seeds_for_rates(0.0, 0.3) is None
    assert seeds_for_rates(0.3, 0.25, limit=30) is None


def test_noethers_number_gives_at_least_the_power_it_promises():
    n = seeds_for_loss_ratio(0.3, 0.75)
    assert n == 17
    rng = np.random.default_rng(0)
    significant = [smaller_p(rng.normal(math.log(0.75), 0.3, n), rng.normal(0, 0.3, n)) <= 0.05 for _ in range(1500)]
    assert 0.8 <= np.mean(significant) <= 0.87  # the formula is a little cautious at so large an effect


def test_noethers_formula_by_hand():
    # q = Phi(1) = 0.8413 at log ratio = sqrt(2) sd; (1.6449 + 0.8416)^2 / (6 * 0.3413^2) = 8.85
    assert seeds_for_loss_ratio(0.5, math.exp(-0.5 * math.sqrt(2))) == 9


def test_non_inferiority_needs_as_many_as_a_gain_of_the_margin():
    assert seeds_for_loss_ratio(0.2, 1.0, margin=1.1) == seeds_for_loss_ratio(0.2, 1 / 1.1)
    assert seeds_for_loss_ratio(0.2, 1.1, margin=1.1) is None
    assert seeds_for_loss_ratio(0.2, 1.0) is None
    assert seeds_for_loss_ratio(1e20, 0.8) is None  # a ratio that is nothing beside the spread


def test_losses_that_never_overlap_still_need_enough_seeds_for_the_exact_test():
    # 1 / C(12, 6) = 0.00108 is above 0.001, 1 / C(14, 7) = 0.0003 is not
    assert seeds_for_loss_ratio(1e-3, 0.5, alpha=0.001, power=0.5) == 7


def test_predictive_power_is_the_sum_over_possible_futures():
    control_failed, control_n, arm_failed, arm_n, extra = 3, 6, 0, 5, 4
    further = np.arange(extra + 1)
    control = scipy.stats.betabinom.pmf(further, extra, control_failed + 0.5, control_n - control_failed + 0.5)
    arm = scipy.stats.betabinom.pmf(further, extra, arm_failed + 0.5, arm_n - arm_failed + 0.5)
    expected = sum(
        control[i] * arm[j]
        for i in further
        for j in further
        if fewer_failures_p(Rate(control_failed + i, control_n + extra), Rate(arm_failed + j, arm_n + extra)) <= 0.05
    )
    assert predictive_power(Rate(control_failed, control_n), Rate(arm_failed, arm_n), extra) == pytest.approx(expected)


def test_predictive_power_of_no_more_seeds_is_the_verdict_so_far():
    assert predictive_power(Rate(3, 10), Rate(0, 10), 0) == 0.0
    assert predictive_power(Rate(4, 10), Rate(0, 10), 0) == 1.0
    assert predictive_power(Rate(0, 0), Rate(0, 0), 0) == 0.0


def test_many_trials_are_predicted_by_the_z_test(monkeypatch):
    exact = predictive_power(Rate(40, 150), Rate(28, 150), 50)
    monkeypatch.setattr("fnostab.stats.design.EXACT_LIMIT", 0)
    assert predictive_power(Rate(40, 150), Rate(28, 150), 50) == pytest.approx(exact, abs=0.03)


def test_settings_out_of_range_are_named():
    for name, call in {
        "control_rate 1.5": lambda: boschloo_power(1.5, 0, 10),
        "arm_rate -0.1": lambda: boschloo_power(0.3, -0.1, 10),
        "arm_rate 2": lambda: seeds_for_rates(0.3, 2),
        "alpha 0": lambda: boschloo_power(0.3, 0, 10, alpha=0),
        "n 0": lambda: boschloo_power(0.3, 0, 0),
        "power 1": lambda: seeds_for_rates(0.3, 0, power=1),
        "candidates 0": lambda: seeds_for_rates(0.3, 0, candidates=0),
        "log_sd 0": lambda: seeds_for_loss_ratio(0, 0.8),
        "ratio nan": lambda: seeds_for_loss_ratio(0.3, math.nan),
        "extra -1": lambda: predictive_power(Rate(1, 3), Rate(0, 3), -1),
    }.items():
        with pytest.raises(ConfigError, match=name):
            call()
    with pytest.raises(DecisionError, match="4 failures of 3 trials"):
        predictive_power(Rate(4, 3), Rate(0, 3), 1)
