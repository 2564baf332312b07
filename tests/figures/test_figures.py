import matplotlib
import numpy as np
import pytest

from fnostab.figures import (
    COLOURS,
    LossCurve,
    failure_rate_forest,
    grad_norm_fan,
    kaplan_meier_figure,
    loss_curves,
    loss_strip,
)
from fnostab.figures.curves import median_curve
from fnostab.figures.decimation import decimate
from fnostab.figures.fan import Curve, make_fan
from fnostab.figures.style import ALERT, arm_styles
from fnostab.ptychography.figures.trial import ERRORS, reconstruction_figure
from fnostab.record.outcomes import Outcome
from fnostab.record.table import TrialRow
from fnostab.stats.rate import Rate
from fnostab.stats.survival import kaplan_meier

NONE = np.array([], dtype=np.int64)


def curve(values, seed=0, nonfinite=NONE):
    steps = np.setdiff1d(np.arange(len(values)), nonfinite)
    return Curve(seed, steps, np.asarray(values, dtype=float)[steps], np.asarray(nonfinite, dtype=np.int64))


def lines(figure, label):
    return [line for ax in figure.axes for line in ax.lines if line.get_label() == label]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def assert_marked(figure, places):
    """Red crosses on the top edge of each axis, at ``places``."""
    found = [[line for line in ax.lines if line.get_label() == "not finite"] for ax in figure.axes]
    assert [[x for line in of_axis for x in line.get_xdata()] for of_axis in found] == places
    for line in (line for of_axis in found for line in of_axis):
        assert (line.get_color(), line.get_marker()) == (ALERT, "x")
        assert line.get_transform() == line.axes.get_xaxis_transform()
        assert set(line.get_ydata()) == {1.0}


@pytest.mark.parametrize("at", [0, 6_667, 19_999])
def test_one_spike_in_20000_steps_is_drawn(at):
    flat = np.ones(20_000)
    spiky = flat.copy()
    spiky[at] = 4e4
    fan = make_fan([curve(flat, 0), curve(spiky, 1), curve(flat, 2)])
    assert fan.steps.size <= 500
    assert fan.peak == (at, 1, 4e4)
    (maximum,) = lines(grad_norm_fan(fan), "maximum")
    low, high = maximum.axes.get_ylim()
    assert low < 1 < 4e4 < high
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
    figure = grad_norm_fan(fan)
    assert_marked(figure, [[1]])
    assert "not finite" in legend(figure)


def test_windows_of_recorded_maxima_leave_no_gaps():
    steps = np.arange(66, 20_000, 67)  # as a monitor records them
    fan = make_fan([Curve(seed, steps, np.ones(steps.size), NONE) for seed in range(2)])
    assert fan.window_steps == 67
    np.testing.assert_array_equal(fan.maximum, 1.0)


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


def test_an_arm_whose_trials_all_failed_leaves_the_survival_curves_their_room():
    arms = {"control": kaplan_meier([9, 9], [False, False]), "arm": kaplan_meier([3, 5], [True, True])}
    heights = []
    for shown in (["control"], list(arms)):
        figure = kaplan_meier_figure({arm: arms[arm] for arm in shown})
        figure.draw_without_rendering()
        heights.append(figure.axes[0].get_position().height)
    assert heights[0] == pytest.approx(heights[1])


def test_every_seed_is_a_point_and_what_became_of_it_its_shape():
    trials = [
        TrialRow("arm", 0, Outcome.CONVERGED, 0.1),
        TrialRow("arm", 1, Outcome.CONVERGED, 0.3),
        TrialRow("arm", 2, Outcome.COLLAPSED, 0.9),
        TrialRow("arm", 3, Outcome.NONFINITE),
        TrialRow("arm", 4, Outcome.OOM),
        TrialRow("arm", 5, Outcome.COLLAPSED),
        TrialRow("arm", 6, Outcome.NONFINITE, 0.5),
    ]
    figure = loss_strip({"control": [], "arm": trials}, metric="loss")
    ax = figure.axes[0]
    drawn = {m: [x for line in ax.lines if line.get_marker() == m for x in line.get_xdata()] for m in "ovx"}
    beside = 1.05  # the axis: without a finite loss
    assert drawn == {"o": [0.1, 0.3], "v": [0.9, beside], "x": [0.5, beside]}
    assert {line.get_color() for line in ax.lines if line.get_marker() == "x"} == {ALERT}
    assert [t.get_text() for t in ax.get_yticklabels()] == ["control\n0/0 ok", "arm\n2/6 ok"]
    assert legend(figure) == ["success", "failure", "not finite", "median of successes"]
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
    rates = {"control": Rate(3, 10), "arm": Rate(0, 0)}
    ax = failure_rate_forest(rates).axes[0]
    control, interval, rate = (list(line.get_xdata()) for line in ax.lines)
    assert control == [0.3, 0.3]
    assert interval == pytest.approx([0.108, 0.603], abs=1e-3)  # Wilson's
    assert rate == [0.3]
    assert [text.get_text() for text in ax.texts] == ["3/10", "no outcome"]


def test_more_arms_than_colours():
    arms = [f"arm_{i}" for i in range(9)]
    ax = kaplan_meier_figure({arm: kaplan_meier([5], [False]) for arm in arms}).axes[0]
    assert {line.get_label() for line in ax.lines} >= set(arms)


@pytest.mark.parametrize("columns", [100, 1600])
def test_of_a_long_curve_every_extreme_and_every_gap_is_kept(columns):
    steps, values = np.arange(20_000), np.random.default_rng(0).lognormal(size=20_000)
    values[[5_000, 5_001]] = 4e4, 1e-9
    values[12_345] = np.nan
    kept, shown = decimate(steps, values, columns)
    assert kept.size <= 3 * columns
    assert {5_000, 5_001, 12_345} <= set(kept)
    np.testing.assert_array_equal(shown, values[kept])
    column = np.arange(20_000) * columns // 20_000
    for function in (np.nanmax, np.nanmin):
        of_all = [function(values[column == c]) for c in range(columns)]
        assert [function(shown[column[kept] == c]) for c in range(columns)] == of_all


def test_a_short_curve_is_drawn_as_it_is():
    steps, values = np.arange(500), np.full(500, np.nan)
    assert decimate(steps, values)[0] is steps
    assert decimate(steps[:0], values[:0])[0].size == 0


@pytest.mark.parametrize(
    ("norms", "labels"),
    [
        ((0.15, 13), ["0.2", "0.5", "1", "2", "5", "10"]),
        ((1e-3, 100), ["0.001", "0.01", "0.1", "1", "10", "100"]),
        (
            (1.5e-5, 8e-4),
            [
                "2\N{MULTIPLICATION SIGN}10⁻⁵",
                "5\N{MULTIPLICATION SIGN}10⁻⁵",
                "10⁻⁴",
                "2\N{MULTIPLICATION SIGN}10⁻⁴",
                "5\N{MULTIPLICATION SIGN}10⁻⁴",
            ],
        ),
    ],
)
def test_a_log_axis_is_labelled_between_its_powers_of_ten_where_these_are_few(norms, labels):
    figure = grad_norm_fan(make_fan([curve(norms)]))
    figure.draw_without_rendering()
    axis, (low, high) = figure.axes[0].yaxis, figure.axes[0].get_ylim()
    ticks = {tick.get_loc(): tick.label1.get_text() for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())}
    assert [ticks[place] for place in sorted(ticks) if ticks[place] and low <= place <= high] == labels


def test_a_value_between_two_gaps_is_drawn():
    figure = grad_norm_fan(make_fan([curve([3.0, np.nan, 5.0, np.nan], 0, [1, 3])]))
    (dots,) = [line for line in figure.axes[0].lines if line.get_marker() == "."]
    assert list(dots.get_xdata()) == [0, 2]


def test_a_failure_that_was_not_finite_is_a_cross_on_its_survival_curve():
    figure = kaplan_meier_figure({"arm": kaplan_meier([3, 5, 9], [True, True, False])}, {"arm": [5]})
    (cross,) = lines(figure, "not finite")
    assert (list(cross.get_xdata()), cross.get_marker(), cross.get_color()) == ([5], "x", ALERT)
    np.testing.assert_allclose(cross.get_ydata(), [1 / 3])
    assert legend(figure) == ["arm", "not finite"]


def losses(*values, seed=0, **more):
    return LossCurve(seed, np.arange(1.0, len(values) + 1), np.array(values), **more)


def test_thousands_of_steps_that_are_not_finite_are_marked_where_they_begin():
    figure = loss_curves({"arm": [losses(0.3, nonfinite_epochs=range(3, 20_000))]}, metric="loss")
    (marks,) = lines(figure, "not finite")
    assert marks.get_xdata()[0] == 3
    assert 100 < marks.get_xdata().size <= 300


def test_a_seed_that_has_ended_counts_in_the_median_as_worse_than_all_others():
    curves = [losses(0.3, 0.2, 0.1), losses(0.4, 0.3, 0.2), losses(0.1), losses()]
    epochs, medians = median_curve(curves)
    assert epochs.tolist() == [1, 2, 3]
    np.testing.assert_allclose(medians, [0.35, np.nan, np.nan])  # of 0.1, 0.3, 0.4 and one without any
    np.testing.assert_allclose(median_curve(curves[:3])[1], [0.3, 0.3, 0.2])


@pytest.mark.parametrize(("arms", "last_row"), [(2, 2), (3, 3), (4, 2), (5, 2), (6, 3), (7, 3), (10, 2)])
def test_no_panel_stands_alone_in_the_last_row(arms, last_row):
    figure = loss_curves({f"arm_{i}": [losses(0.3, 0.2)] for i in range(arms)}, metric="loss")
    figure.draw_without_rendering()
    bottoms = [round(ax.get_position().y0, 2) for ax in figure.axes if ax.get_visible()]
    assert bottoms.count(min(bottoms)) == last_row


def test_a_validation_within_an_epoch_is_drawn_but_moves_no_median():
    curve = LossCurve(0, np.array([1.0, 1.5]), np.array([0.3, 9.0]), failed=True)
    assert median_curve([curve])[0].tolist() == [1]
    (seed, *_) = loss_curves({"arm": [curve]}, metric="loss").axes[0].lines
    assert list(seed.get_ydata()) == [0.3, 9.0]


def test_every_seed_has_a_loss_curve_and_failures_their_own_shape():
    control = [losses(0.3, 0.2, 0.1, seed=0), losses(0.4, 0.3, seed=1, failed=True, nonfinite_epochs=[2.5])]
    figure = loss_curves({"control": control, "arm": [losses(0.5, 0.4, 0.3)]}, metric="loss")
    first, second = figure.axes
    drawn = [list(line.get_ydata()) for line in first.lines]
    assert drawn[:2] == [[0.3, 0.2, 0.1], [0.4, 0.3]]
    styles = [line.get_linestyle() for line in first.lines[:2]]
    assert styles[0] == "-"
    assert styles[1] != "-"
    (end,) = [line for line in first.lines if line.get_marker() == "v"]
    assert (list(end.get_xdata()), list(end.get_ydata())) == ([2], [0.3])
    assert first.get_yscale() == second.get_yscale() == "log"
    assert first.get_ylim() == second.get_ylim()
    assert [ax.get_title() for ax in figure.axes] == ["control: 1 of 2 failed", "arm: 0 of 1 failed"]
    assert legend(figure) == ["a seed", "a seed that failed", "median", "median of control", "not finite"]
    assert_marked(figure, [[2.5], []])
    (reference,) = [line for line in second.lines if line.get_linestyle() == ":"]
    np.testing.assert_allclose(reference.get_ydata(), [0.35, 0.25, np.nan])


def test_losses_to_compare_with_are_lines_in_every_panel():
    arms = {"control": [losses(0.3, 0.2)], "arm": [losses(0.4, 0.1)]}
    figure = loss_curves(arms, metric="loss", levels={"constant output": 0.35, "noise alone": 0.05})
    for ax in figure.axes:
        flat = {line.get_ydata()[0]: line.get_linestyle() for line in ax.lines if list(line.get_xdata()) == [0, 1]}
        assert list(flat) == [0.35, 0.05]
        assert flat[0.35] != flat[0.05]
    assert legend(figure)[-2:] == ["constant output", "noise alone"]


@pytest.mark.parametrize("arms", [{}, {"control": []}, {"control": [losses()], "b": [losses(1.0)]}])
def test_loss_curves_of_little(arms):
    loss_curves(arms, metric="loss").canvas.draw()


def test_error_maps_are_the_difference_of_amplitudes_and_the_wrapped_one_of_phases():
    truth = np.array([[2 * np.exp(3j), 1.0]])
    predicted = np.array([[1.5 * np.exp(-3j), 1.25]])
    panels = [ax for ax in reconstruction_figure(predicted, truth, phase=True).axes if ax.images]
    shown = [ax.images[0].get_array() for ax in panels]
    np.testing.assert_allclose(shown[2], [[-0.5, 0.25]])
    np.testing.assert_allclose(shown[5], [[2 * np.pi - 6, 0]], atol=1e-12)
    assert panels[2].get_xlabel() == "mean absolute error 0.38"
    limits = [ax.images[0].get_clim() for ax in panels]
    assert limits[0] == limits[1] == pytest.approx((1, 2))  # the truth's
    assert limits[2] == (-0.5, 0.5)
    assert all(ax.images[0].colorbar is not None for ax in panels)
    (three,) = {len([ax for ax in reconstruction_figure(predicted, truth, phase=False).axes if ax.images])}
    assert three == 3


def test_the_sign_of_an_error_is_seen_in_grey():
    lightness = lightness_of(matplotlib.colormaps[ERRORS](np.linspace(0, 1, 64))[:, :3])
    assert (np.diff(lightness) > 0).all()


def test_arms_differ_in_more_than_colour():
    styles = list(arm_styles(f"arm_{i}" for i in range(4)).values())
    for part in zip(*styles, strict=True):
        assert len(set(part)) == 4


def test_colours_are_told_apart_by_deuteranopes():
    seen = deuteranope([matplotlib.colors.to_rgb(colour) for colour in COLOURS])
    nearest = min(np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i])
    red, green = deuteranope([(0.75, 0, 0), (0.3, 0.5, 0)])
    assert nearest > 0.15 > 2 * np.linalg.norm(red - green)


def lightness_of(rgb):
    return linear(rgb) @ [0.2126, 0.7152, 0.0722]


def linear(rgb):
    rgb = np.asarray(rgb)
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def deuteranope(rgb):
    """Machado, Oliveira and Fernandes, IEEE TVCG 15 (2009) 1291, severity 1; in linear RGB."""
    matrix = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    return linear(rgb) @ np.transpose(matrix)
