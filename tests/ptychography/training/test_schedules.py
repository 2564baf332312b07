import math

import pytest

from fnostab.ptychography.training.schedules import rate_factor


def warmup_cosine(warmup_steps, total_steps):
    return rate_factor(warmup_steps, total_steps, cosine=True)


def test_by_hand():
    factor = warmup_cosine(warmup_steps=3, total_steps=11)
    assert [factor(step) for step in (0, 1, 2)] == [0.25, 0.5, 0.75]
    assert factor(3) == 1
    assert factor(5) == pytest.approx((1 + math.sqrt(0.5)) / 2)  # a quarter of the cosine's way
    assert factor(7) == pytest.approx(0.5)
    assert factor(11) == pytest.approx(0)


def test_a_floor_is_where_the_cosine_ends_and_stays():
    factor = rate_factor(3, 11, cosine=True, floor=0.2)
    assert [factor(step) for step in (0, 3, 7, 11, 50)] == pytest.approx([0.25, 1, 0.6, 0.2, 0.2])
    whole = warmup_cosine(3, 11)
    assert [rate_factor(3, 11, cosine=True, floor=0.0)(step) for step in range(12)] == [whole(s) for s in range(12)]


def test_it_rises_then_falls_and_never_restarts():
    factor = warmup_cosine(20, 100)
    values = [factor(step) for step in range(150)]
    assert values[:21] == sorted(values[:21])
    assert values[20:] == sorted(values[20:], reverse=True)
    assert all(0 < value <= 1 for value in values[:100])
    assert values[100:] == [pytest.approx(0)] * 50


def test_no_step_is_wasted_on_a_rate_of_zero():
    assert warmup_cosine(1000, 10_000)(0) > 0
    assert warmup_cosine(0, 10)(0) == 1


def test_a_warm_up_that_outlasts_the_training():
    factor = warmup_cosine(100, 50)
    assert [factor(step) for step in (0, 49, 99, 100)] == [1 / 101, 50 / 101, 100 / 101, 1]


def test_warm_up_alone_stays_at_the_top():
    factor = rate_factor(3, 11, cosine=False)
    assert [factor(step) for step in (0, 2, 3, 10, 100)] == [0.25, 0.75, 1, 1, 1]
