import numpy as np
import pytest

from fnostab.figures import INK, failure_rate_forest, grad_norm_fan, history_figure, kaplan_meier_figure, loss_strip
from fnostab.figures.arms import FailureRate
from fnostab.figures.fan import Curve, make_fan
from fnostab.outcomes import Outcome
from fnostab.stats.survival import kaplan_meier
from fnostab.table import TrialRow

NONE = np.array([], dtype=np.int64)


def curve(values, seed=0, nonfinite=NONE):
    steps = np.setdiff1d(np.arange(len(values)), nonfinite)
    return Curve(seed, steps, np.asarray(values, dtype=float)[steps], np.asarray(nonfinite, dtype=np.int64))


def lines(figure, label):
    return [line for ax in figure.axes for line in ax.lines if line.get_label() == label]


@pytest.mark.parametrize("at", [0, 6_667, 19_999])
def test_one_spike_in_20000_steps_is_drawn(at):
    flat = np.ones(20_000)
    spiky = flat.copy()
    spiky[at] = 4e4
    fan = make_fan([curve(flat, 0), curve(spiky, 1), curve(flat, 2)])
    assert fan.steps.size <= 500
    assert fan.peak == (at, 1, 4e4)
    (maximum,) = lines(grad_norm_fan(fan), "maximum")
    assert maximum.get_ydata().max() == 4e4
    assert maximum.get_xdata()[np.argmax(maximum.get_ydata())] == at // fan.window_steps * fan.window_steps
    np.testing.assert_array_equal(fan.median, 1.0)  # one seed of three does not move it


def test_with_few_steps_the_fan_is_that_of_every_step():
    norms = np.random.default_rng(0).lognormal(size=(7, 200))
    fan = make_fan([curve(row, seed) for seed, row in enumerate(norms)])
    assert fan.window_steps == 1
    for ours, q in ((fan.low, 0.25), (fan.median, 0.5), (fan.high, 0.75), (fan.maximum, 1.0)):
        np.testing.assert_allclose(ours, np.quantile(norms, q, axis=0))


def test_seeds_that_end_early_and_steps_that_are_not_finite():
    fan = make_fan([curve([1.0, 2.0, 3.0, 4.0]), curve([10.0, np.nan, 30.0], 1, [1])])
    np.testing.assert_array_equal(fan.maximum, [10, 2, 30, 4])
    np.testing.assert_array_equal(fan.nonfinite, [0, 1, 0, 0])
    (marks,) = lines(grad_norm_fan(fan), "not finite")
    assert list(marks.get_xdata()) == [1]


def test_a_step_at_which_no_seed_is_finite_is_a_gap():
    fan = make_fan([curve([1.0, np.nan, 3.0], 0, [1])])
    assert np.isnan(fan.maximum).tolist() == [False, True, False]


def test_fans_of_nothing():
    for curves in ([], [Curve(0, NONE, np.array([]), NONE)]):
        fan = make_fan(curves)
        assert fan.peak is None
        grad_norm_fan(fan).canvas.draw()


def test_survival_is_drawn_as_it_was_estimated():
    estimate = kaplan_meier([3, 5, 5, 9], [True, True, False, False])
    figure = kaplan_meier_figure({"control": estimate, "empty": None})
    (steps,) = lines(figure, "control")
    assert steps.get_drawstyle() == "steps-post"
    np.testing.assert_array_equal(steps.get_xdata(), [0, 3, 5, 9])
    np.testing.assert_allclose(steps.get_ydata(), [1, 3 / 4, 1 / 2, 1 / 2])
    (ticks,) = [line for line in figure.axes[0].lines if line.get_marker() == "|"]
    assert list(ticks.get_xdata()) == [5, 9]
    assert not lines(figure, "empty")


def test_every_seed_is_a_point_and_failures_are_crosses():
    trials = [
        TrialRow("arm", 0, Outcome.CONVERGED, 0.1),
        TrialRow("arm", 1, Outcome.CONVERGED, 0.3),
        TrialRow("arm", 2, Outcome.COLLAPSED, 0.9),
        TrialRow("arm", 3, Outcome.NONFINITE),
        TrialRow("arm", 4, Outcome.OOM),
    ]
    ax = loss_strip({"control": [], "arm": trials}, metric="loss").axes[0]
    drawn = {m: [x for line in ax.lines if line.get_marker() == m for x in line.get_xdata()] for m in "ox"}
    assert drawn["o"] == [0.1, 0.3]
    assert drawn["x"] == [0.9, 1.05]  # the second beside the axis: it has no finite loss
    assert [t.get_text() for t in ax.get_yticklabels()] == ["control\n0/0 ok", "arm\n2/4 ok"]
    (median,) = ax.collections
    assert median.get_segments()[0][0][0] == pytest.approx(0.2)


def test_the_seeds_of_all_arms_are_at_the_same_places():
    arms = {
        arm: [TrialRow(arm, seed, Outcome.CONVERGED, 1.0) for seed in seeds]
        for arm, seeds in {"control": (0, 1, 2), "arm": (2, 0)}.items()
    }
    ax = loss_strip(arms, metric="loss").axes[0]
    control, arm = [line.get_ydata() for line in ax.lines if line.get_marker() == "o" and len(line.get_ydata())][:2]
    np.testing.assert_allclose(np.array(arm) - 1, [control[2], control[0]])


def test_rates_with_their_intervals():
    rates = {"control": FailureRate(3, 10, (0.1, 0.6)), "arm": FailureRate(0, 0, None)}
    ax = failure_rate_forest(rates).axes[0]
    interval, rate = ax.lines
    assert list(interval.get_xdata()) == [0.1, 0.6]
    assert list(rate.get_xdata()) == [0.3]
    assert [text.get_text() for text in ax.texts] == ["3/10", "no outcome"]


def test_more_arms_than_colours():
    arms = [f"arm_{i}" for i in range(9)]
    ax = kaplan_meier_figure({arm: kaplan_meier([5], [False]) for arm in arms}).axes[0]
    assert {line.get_label() for line in ax.lines} >= set(arms)


def test_a_history_marks_what_failed():
    figure = history_figure([0, 1, 2], {"loss": [1.0, 2.0, 3.0]}, ylabel="loss", nonfinite_steps=[2], failure_step=2)
    assert [line.get_color() for line in figure.axes[0].lines[1:]] == [INK, INK]
