import math

import numpy as np
import pytest
import scipy

from fnostab.ptychography.drift import Growth, Slope, drift, growth, mean_slope
from fnostab.record import names
from fnostab.stats.interval import Interval


def states(means, std=1.0):
    return {f"b{i}": {names.ACTIVATION_MEAN: mean, names.ACTIVATION_STD: std} for i, mean in enumerate(means)}


def test_slopes_of_three_seeds_by_hand():
    slope = mean_slope([[0, 1, 2], [1, 3, 5], [0, 0, 9]])  # 1, 2 and 4.5
    assert slope.n == 3
    assert slope.estimate == pytest.approx(2.5)
    half = 4.302653 * math.sqrt(3.25) / math.sqrt(3)  # t of 2 degrees of freedom; variance (2.25 + 0.25 + 4) / 2
    assert slope.interval == pytest.approx((2.5 - half, 2.5 + half), rel=1e-6)


def test_each_slope_is_scipys():
    curves = np.random.default_rng(0).normal(size=(7, 9))
    slopes = [scipy.stats.linregress(range(9), curve).slope for curve in curves]
    expected = scipy.stats.ttest_1samp(slopes, 0).confidence_interval(0.95)
    found = mean_slope(curves)
    assert found.estimate == pytest.approx(np.mean(slopes))
    assert found.interval == pytest.approx((expected.low, expected.high))


def test_one_seed_has_no_interval_and_one_block_no_slope():
    assert mean_slope([[0.0, 2.0]]) == (2.0, None, 1)
    assert mean_slope([[1.0], [2.0]]) is None
    assert mean_slope([]) is None


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ((0.1, 0.3), Growth.GROWS),
        ((-0.1, 0.3), Growth.CANT_TELL),
        ((-0.3, -0.1), Growth.DOES_NOT_GROW),
        ((-0.1, 0.04), Growth.DOES_NOT_GROW),  # 0.16 over five blocks, below 0.2 of the spread
        ((0.01, 0.04), Growth.DOES_NOT_GROW),
        ((0.01, 0.06), Growth.GROWS),
        (None, Growth.CANT_TELL),
    ],
)
def test_the_interval_says_whether_a_mean_grows(interval, expected):
    slope = Slope(0.0, Interval(*interval) if interval else None, 3)
    assert growth(slope, blocks=5, spread=1.0) is expected


def test_the_drift_of_seeds():
    found = drift([states([0, 1, 2]), states([0, 2, 4]), states([0, 1.5, 3])])
    assert (found.growth, found.mean.n) == (Growth.GROWS, 3)
    assert found.mean.estimate == pytest.approx(1.5)
    assert found.as_dict()["mean"] == "grows"
    still = drift([states([0.1] * 4), states([0.2] * 4)])
    assert still.growth is Growth.DOES_NOT_GROW
    assert still.log_rms.estimate == pytest.approx(0, abs=1e-12)


def test_a_spread_that_doubles_in_each_block_is_a_factor_of_two():
    seed = {str(i): {names.ACTIVATION_MEAN: 0.0, names.ACTIVATION_STD: 2.0**i} for i in range(4)}
    assert math.exp(drift([seed]).log_rms.estimate) == pytest.approx(2)


def test_a_seed_without_all_numbers_is_left_out():
    broken = states([0, 1, 2])
    del broken["b1"][names.ACTIVATION_STD]
    assert drift([states([0, 1, 2]), broken, {}]).mean.n == 1
    assert drift([]) is None
    assert drift([{}]) is None
    assert drift([states([1.0])]) is None


def test_without_any_activation_there_is_no_factor():
    found = drift([states([0.0, 0.0], std=0.0), states([0.0, 0.0], std=0.0)])
    assert found.log_rms is None
    assert found.growth is Growth.DOES_NOT_GROW
