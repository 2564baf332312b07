import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnostab.errors import ConfigError
from fnostab.stats.boschloo import rejection_region
from fnostab.stats.design import boschloo_power, predictive_power
from fnostab.stats.rate import Rate
from fnostab.stats.sequential import sequential_alpha, sequential_error_and_power


def test_two_looks_after_ten_and_twenty_seeds():
    alpha = sequential_alpha([10, 20])
    assert 0.031 < alpha < 0.032
    assert sequential_error_and_power([10, 20], alpha, 0.3, 0.0).error <= 0.05
    assert sequential_error_and_power([10, 20], alpha + 0.0001, 0.3, 0.0).error > 0.05
    # two looks at 0.034 exceed 0.05 by a hair, two at 0.05 by a third
    assert sequential_error_and_power([10, 20], 0.034, 0.3, 0.0).error == pytest.approx(0.0507, abs=5e-5)


def test_looks_that_nobody_planned_exceed_the_first_ones_alpha_by_a_third_at_most():
    levels = [0.05, 0.0125, 0.003125]
    assert sequential_error_and_power([10, 20, 40], levels, 0.3, 0.3).error == pytest.approx(0.0498, abs=5e-5)
    assert sequential_error_and_power([15, 30, 60], levels, 0.3, 0.3).error == pytest.approx(0.0546, abs=5e-5)
    assert sum(levels) < 0.05 * 4 / 3


def test_paths_agree_with_simulation():
    looks, alpha, control_rate, arm_rate, studies = [5, 10, 20], 0.03, 0.5, 0.1, 40_000
    rng = np.random.default_rng(0)
    control = (rng.random((studies, looks[-1])) < control_rate).cumsum(axis=1)
    arm = (rng.random((studies, looks[-1])) < arm_rate).cumsum(axis=1)
    regions = {n: rejection_region(alpha, control_n=n, arm_n=n) for n in looks}
    rejected = np.stack([regions[n][control[:, n - 1], arm[:, n - 1]] for n in looks], axis=1)
    first = np.where(rejected.any(axis=1), rejected.argmax(axis=1), -1)
    design = sequential_error_and_power(looks, alpha, control_rate, arm_rate)
    for look, share in enumerate(design.rejected_at_look):
        assert (first == look).mean() == pytest.approx(share, abs=0.01)
    assert np.asarray(looks)[first].mean() == pytest.approx(design.expected_seeds, abs=0.1)  # -1: the last look


@settings(max_examples=20)
@given(st.integers(1, 25), st.floats(0, 1), st.floats(0, 1))
def test_one_look_is_the_fixed_design(n, control_rate, arm_rate):
    design = sequential_error_and_power([n], 0.05, control_rate, arm_rate)
    assert design.power == pytest.approx(boschloo_power(control_rate, arm_rate, n))
    assert design.error <= 0.05 * (1 + 1e-9)
    assert design.expected_seeds == pytest.approx(n)


def test_one_look_spends_all_of_alpha():
    assert sequential_alpha([20]) == pytest.approx(0.05)


@pytest.mark.parametrize("looks", [[5, 10, 15, 20], [10, 20, 30], [3, 4]])
def test_alpha_lies_between_bonferronis_and_the_overall_one_and_keeps_it(looks):
    alpha = sequential_alpha(looks)
    assert 0.05 / len(looks) <= alpha + 5e-5
    assert alpha <= 0.05
    design = sequential_error_and_power(looks, alpha, 0.4, 0.0)
    assert design.error <= 0.05
    assert 0 < design.error_rate < 1
    assert sum(design.rejected_at_look) == pytest.approx(design.power)


def test_looking_early_saves_seeds():
    design = sequential_error_and_power([10, 20], sequential_alpha([10, 20]), 0.6, 0.0)
    assert 10 < design.expected_seeds < 12
    assert design.power > 0.99


@pytest.mark.parametrize("looks", [[], [0, 5], [10, 10], [20, 10]])
def test_looks_must_rise(looks):
    with pytest.raises(ConfigError, match="looks"):
        sequential_alpha(looks)
    with pytest.raises(ConfigError, match="looks"):
        sequential_error_and_power(looks, 0.05, 0.3, 0.0)


def test_giving_up_saves_seeds_and_costs_power_but_no_error():
    looks, alpha = [10, 20], sequential_alpha([10, 20])
    on, off = (sequential_error_and_power(looks, alpha, 0.3, 0.3, futility=futility) for futility in (True, False))
    assert on.error == off.error
    assert on.expected_seeds < off.expected_seeds
    assert on.power <= off.power
    assert off.futile_at_look == (0.0, 0.0)
    assert on.futile_at_look[0] > 0.4
    better = sequential_error_and_power(looks, alpha, 0.3, 0.0, futility=True)
    assert better.futile_at_look[0] == pytest.approx(0.7**10, abs=1e-9)  # only where control has not failed at all


def test_giving_up_agrees_with_simulation():
    looks, alpha, rates, studies = [5, 10], 0.03, (0.5, 0.3), 20_000
    rng = np.random.default_rng(0)
    control, arm = ((rng.random((studies, 10)) < rate).cumsum(axis=1) for rate in rates)
    early, late = ((control[:, n - 1], arm[:, n - 1]) for n in looks)
    found = rejection_region(alpha, control_n=5, arm_n=5)[early]
    power = np.array([[predictive_power(Rate(a, 5), Rate(b, 5), 5, alpha) for b in range(6)] for a in range(6)])
    given_up = (power < 0.1)[early] & ~found
    design = sequential_error_and_power(looks, alpha, *rates, futility=True)
    assert given_up.mean() == pytest.approx(design.futile_at_look[0], abs=0.01)
    later = rejection_region(alpha, control_n=10, arm_n=10)[late] & ~found & ~given_up
    assert later.mean() == pytest.approx(design.rejected_at_look[1], abs=0.01)
