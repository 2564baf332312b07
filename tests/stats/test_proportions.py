import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnostab.errors import DecisionError
from fnostab.stats.proportions import clopper_pearson_upper, fewer_failures_p, holm, newcombe_difference, wilson
from fnostab.stats.rate import Rate


@st.composite
def rates(draw):
    n = draw(st.integers(1, 15))
    return draw(st.integers(0, n)), n


def test_three_of_ten_against_none_just_misses_five_percent():
    assert fewer_failures_p(Rate(3, 10), Rate(0, 10)) == pytest.approx(0.0579, abs=1e-4)


def test_boschloo_reproduces_the_example_of_scipys_manual():
    # 74 of 117 professors, 31 of 63 scientists satisfied (Saari et al. 2004): p = 0.0355
    assert fewer_failures_p(Rate(74, 117), Rate(31, 63)) == pytest.approx(0.0355, abs=1e-4)


def test_one_trial_each_by_hand():
    # P(control fails, arm does not) = rate (1 - rate), largest 1/4 at rate 1/2
    assert fewer_failures_p(Rate(1, 1), Rate(0, 1)) == pytest.approx(0.25)


@pytest.mark.parametrize(
    "counts", [(0, 10, 0, 10), (10, 10, 10, 10), (0, 0, 3, 10), (3, 10, 0, 0), (0, 0, 0, 0), (5, 5, 3, 3)]
)
def test_data_without_information_give_p_one(counts):
    assert fewer_failures_p(Rate(*counts[:2]), Rate(*counts[2:])) == 1.0


@settings(max_examples=40)
@given(rates(), rates())
def test_boschloo_is_symmetric_when_failures_and_successes_and_arms_trade_places(control, arm):
    (a, n), (b, m) = control, arm
    assert fewer_failures_p(Rate(a, n), Rate(b, m)) == pytest.approx(
        fewer_failures_p(Rate(m - b, m), Rate(n - a, n)), rel=1e-6
    )


@settings(max_examples=40)
@given(rates(), rates())
def test_one_more_failure_of_the_arm_never_lowers_p(control, arm):
    if arm[0] < arm[1]:
        assert (
            fewer_failures_p(Rate(*control), Rate(arm[0] + 1, arm[1]))
            >= fewer_failures_p(Rate(*control), Rate(*arm)) - 1e-9
        )


@pytest.mark.parametrize(
    ("failed", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_reproduces_newcombes_table(failed, n, low, high):
    # Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3
    assert wilson(failed, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 40), st.data())
def test_wilson_mirrors_and_holds_the_rate(n, data):
    failed = data.draw(st.integers(0, n))
    low, high = wilson(failed, n)
    assert 0 <= low <= failed / n + 1e-12
    assert failed / n - 1e-12 <= high <= 1
    assert wilson(n - failed, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        ((56, 70, 48, 80), 0.0524, 0.3339),
        ((9, 10, 3, 10), 0.1705, 0.8090),
        ((6, 7, 2, 7), 0.0582, 0.8062),
        ((5, 56, 0, 29), -0.0381, 0.1926),
        ((0, 10, 0, 20), -0.1611, 0.2775),
        ((0, 10, 0, 10), -0.2775, 0.2775),
        ((10, 10, 0, 20), 0.6791, 1.0),
        ((10, 10, 0, 10), 0.6075, 1.0),
    ],
)
def test_newcombe_reproduces_his_table(counts, low, high):
    # Newcombe, Statistics in Medicine 17 (1998) 873, table II, method 10
    assert newcombe_difference(Rate(*counts[:2]), Rate(*counts[2:])) == pytest.approx((low, high), abs=5e-5)


@given(rates(), rates())
def test_newcombe_changes_sign_when_the_arms_trade_places(control, arm):
    low, high = newcombe_difference(Rate(*control), Rate(*arm))
    assert newcombe_difference(Rate(*arm), Rate(*control)) == pytest.approx((-high, -low), abs=1e-12)
    assert -1 - 1e-12 <= low <= high <= 1 + 1e-12


@pytest.mark.parametrize(("n", "bound"), [(1, 0.95), (3, 0.6316), (10, 0.2589), (59, 0.0495)])
def test_zero_failures_bound_is_clopper_and_pearsons(n, bound):
    assert clopper_pearson_upper(n) == pytest.approx(bound, abs=5e-5)
    assert clopper_pearson_upper(n) == pytest.approx(1 - 0.05 ** (1 / n))


def test_no_trials_no_interval():
    assert wilson(0, 0) is None
    assert clopper_pearson_upper(0) is None
    assert newcombe_difference(Rate(0, 0), Rate(1, 3)) is None
    assert newcombe_difference(Rate(1, 3), Rate(0, 0)) is None


@pytest.mark.parametrize(("failed", "n"), [(4, 3), (-1, 3)])
def test_impossible_counts_are_named(failed, n):
    for call in (lambda: wilson(failed, n), lambda: fewer_failures_p(Rate(failed, n), Rate(0, 3))):
        with pytest.raises(DecisionError, match=f"{failed} failures of {n} trials"):
            call()


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms())
def test_holm_lies_between_the_raw_p_and_bonferroni_and_ignores_order(p, random):
    adjusted = holm(p)
    assert all(raw <= value <= min(1, raw * len(p)) for raw, value in zip(p, adjusted, strict=True))
    order = list(range(len(p)))
    random.shuffle(order)
    assert holm([p[i] for i in order]) == [adjusted[i] for i in order]


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_holm_refuses_what_is_no_probability(bad):
    with pytest.raises(DecisionError, match="between 0 and 1"):
        holm([0.5, bad])
