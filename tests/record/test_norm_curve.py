"""Curves in a few characters keep what matters."""

import math

import pytest

from fnostab.record.norm_curve import BARS, CELLS, NONFINITE, NormCurve, sparkline


def curve_of(norms):
    curve = NormCurve()
    for step, norm in enumerate(norms):
        curve.add(norm, step)
    return curve


@pytest.mark.parametrize("n_steps", [1, 30, CELLS, CELLS + 1, 8620, 100_003])
@pytest.mark.parametrize("width", [1, 8, 40])
def test_a_single_spike_stays_visible_however_long_the_curve_is(n_steps, width):
    norms = [1.0] * n_steps
    norms[n_steps // 3] = 1e4
    columns = curve_of(norms).columns(width)
    assert columns.count(1e4) == 1
    assert len(columns) <= width
    assert len(columns) == min(width, n_steps) or n_steps < CELLS


def test_a_spike_stands_above_the_rest():
    text = sparkline(curve_of([1.0] * 50 + [1000.0] + [1.0] * 49), 20)
    assert text == BARS[0] * 10 + BARS[-1] + BARS[0] * 9


def test_the_scale_is_logarithmic():
    assert sparkline(curve_of([10.0**i for i in range(8)]), 8) == BARS


def test_noise_does_not_look_like_spikes():
    assert set(sparkline(curve_of([1.0, 1.1, 1.0, 0.9, 1.0]), 8)) <= set(BARS[:2])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_step_that_is_not_finite_is_marked_also_in_the_midst_of_others(value):
    norms = [1.0] * 1000
    norms[500] = value
    text = sparkline(curve_of(norms), 10)
    assert text.count(NONFINITE) == 1
    assert text[5] == NONFINITE


def test_steps_that_are_missing_are_left_empty_and_zero_is_the_lowest_bar():
    curve = NormCurve()
    curve.add(1.0, 0)
    curve.add(0.0, 3)
    assert sparkline(curve, 8) == f"{BARS[0]}  {BARS[0]}"


def test_the_maximum_of_a_window_stands_for_all_of_its_steps():
    every_step, windows = NormCurve(), NormCurve()
    for step in range(1000):
        every_step.add(float(step), step)
    for last in range(9, 1000, 10):
        windows.add(float(last), last, last - 9)
    assert sparkline(every_step, 10) == sparkline(windows, 10)
    assert " " not in sparkline(windows, 40)


def test_an_empty_curve_is_no_text():
    assert sparkline(NormCurve(), 8) == ""
    assert not NormCurve()
