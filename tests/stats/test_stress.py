"""Stability margins: by hand, and their coverage by simulation."""

import itertools

import numpy as np
import pytest

from fnostab.errors import DecisionError
from fnostab.stats.stress import crossing, paired_fewer_failures_p

VALUES = (0.01, 0.1, 1.0)


def test_between_a_rate_of_0_and_one_of_1_it_is_the_geometric_mean():
    found = crossing(VALUES, [0, 6, 6], [6, 6, 6])
    assert found.estimate == pytest.approx(0.01 * 10**0.5)
    assert (found.trains_at, found.fails_at) == (0.01, 0.1)


def test_rates_out_of_order_are_pooled():
    """2/6 and 1/6 become 1/4 each, so that one half is two thirds of the way from 1/4 to 5/8 on."""
    found = crossing((1, 10, 100), [2, 1, 5], [6, 6, 8])
    assert found.estimate == pytest.approx(10 ** (1 + 2 / 3))


@pytest.mark.parametrize(("failed", "beyond"), [([0, 0, 1], True), ([6, 6, 6], False)])
def test_on_one_side_of_one_half_there_is_no_estimate(failed, beyond):
    found = crossing(VALUES, failed, [6, 6, 6])
    assert found.estimate is None
    assert found.beyond is beyond
    assert found.trains_at == (0.1 if beyond else None)
    assert found.fails_at == (None if beyond else 0.01)


def test_one_half_at_the_first_value_is_reached_there_and_not_before():
    assert crossing(VALUES, [3, 3, 6], [6, 6, 6]).estimate == pytest.approx(0.01)


def test_six_trials_are_the_fewest_that_show_anything():
    """1/2^5 is above 2.5 %, 1/2^6 below."""
    assert crossing(VALUES, [0, 0, 5], [5, 5, 5]).trains_at is None
    assert crossing(VALUES, [0, 0, 6], [6, 6, 6]).trains_at == 0.1


def test_a_value_is_only_tested_after_all_before_it():
    assert crossing(VALUES, [1, 0, 6], [6, 6, 6]).trains_at is None


def test_a_knob_that_is_harder_the_lower():
    found = crossing((100, 10, 1), [0, 0, 6], [6, 6, 6])
    assert found.estimate == pytest.approx(10**0.5)
    assert (found.trains_at, found.fails_at) == (10, 1)


@pytest.mark.parametrize("values", [(1, 1, 2), (1, 3, 2), (0, 1, 2), (-1, 1, 2)])
def test_values_out_of_order_are_refused(values):
    with pytest.raises(DecisionError, match="rising values above 0"):
        crossing(values, [0, 0, 0], [1, 1, 1])


def test_values_without_trials_do_not_count():
    assert crossing(VALUES, [0, 0, 6], [6, 0, 6]) == crossing((0.01, 1.0), [0, 6], [6, 6])


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Rates that cross one half at 0.2, from a logistic curve of the logarithm; 4000 studies of 8 trials a value."""
    random, values = np.random.default_rng(0), np.array([0.02, 0.05, 0.1, 0.3, 0.6, 2.0])
    rates = 1 / (1 + (0.2 / values) ** 1.5)
    missed = 0
    for failed in random.binomial(8, rates, size=(4000, 6)):
        found = crossing(values, failed, [8] * 6)
        missed += not (found.trains_at or 0) < 0.2 < (found.fails_at or np.inf)
    assert missed / 4000 <= 0.05


class TestPairedFewerFailures:
    def test_all_seeds_for_the_arm_have_the_chance_of_that_sign_pattern(self):
        assert paired_fewer_failures_p([2, 1, 3, 1, 2]) == pytest.approx(1 / 32)

    def test_it_is_the_share_of_all_sign_patterns_that_are_as_good(self):
        differences = [3, -1, 2, 0, 1, -2]
        patterns = itertools.product((1, -1), repeat=6)
        sums = [sum(sign * d for sign, d in zip(signs, differences, strict=True)) for signs in patterns]
        assert paired_fewer_failures_p(differences) == pytest.approx(np.mean(np.array(sums) >= sum(differences)))

    def test_without_a_difference_nothing_is_said(self):
        assert paired_fewer_failures_p([0, 0]) == 1
        assert paired_fewer_failures_p([]) == 1

    def test_a_worse_arm_has_a_large_p(self):
        assert paired_fewer_failures_p([-2, -1, -3]) == 1
