import dataclasses

import numpy as np
import pytest

from fnostab.figures.style import ALERT
from fnostab.ptychography.figures.replay import ReplayedSteps, replay_figure

MODULES = ("first", "norm", "last")


@pytest.fixture
def replayed():
    """Steps 20 to 25: the output of the last module grows tenfold a step, the gradient is not finite at step 24."""
    growth = np.array([[1.0] * 6, [np.nan] * 6, 10.0 ** np.arange(6)])
    return ReplayedSteps(
        steps=np.arange(20, 26),
        losses=np.array([1.0, 1.0, 2.0, 5.0, np.nan, np.nan]),
        grad_norms=np.array([1.0, 1.0, 8.0, 1e5, np.inf, 0.0]),
        modules=MODULES,
        output_rms=growth,
        dead=np.zeros((3, 6)),
        nonfinite=np.array([[False] * 6, [False] * 6, [False] * 4 + [True] * 2]),
        focus=23,
        failure_step=24,
    )


def crosses(ax):
    return [(x, y) for line in ax.lines if line.get_color() == ALERT for x, y in line.get_xydata().tolist()]


def images(figure):
    return [ax for ax in figure.axes if ax.images]


def test_loss_and_norm_stand_over_the_steps_on_logarithmic_axes(replayed):
    loss, norm = replay_figure(replayed).axes[:2]
    assert {ax.get_yscale() for ax in (loss, norm)} == {"log"}
    steps, values = loss.lines[0].get_data()
    assert list(steps) == list(range(20, 26))
    assert list(values[:4]) == [1.0, 1.0, 2.0, 5.0]
    assert np.isnan(values[4:]).all()


def test_values_that_are_not_finite_are_crosses_on_the_top_edge(replayed):
    loss, norm = replay_figure(replayed).axes[:2]
    assert [x for x, _ in crosses(loss)] == [24, 25]
    assert [x for x, _ in crosses(norm)] == [24]  # a norm of 0 is finite, though no log axis shows it


def test_focus_and_failing_step_are_marked_in_every_panel(replayed):
    figure = replay_figure(replayed)
    for ax in [*figure.axes[:2], *images(figure)]:
        vertical = {line.get_xdata()[0]: line.get_linestyle() for line in ax.lines if "step" in str(line.get_label())}
        assert vertical == {23: "-", 24: "--"}


def test_a_failing_step_that_was_not_replayed_is_not_marked(replayed):
    figure = replay_figure(dataclasses.replace(replayed, failure_step=99))
    assert all(line.get_xdata()[0] != 99 for ax in figure.axes for line in ax.lines if len(line.get_xdata()))


def test_one_row_a_module_one_column_a_step(replayed):
    growth, dead = images(replay_figure(replayed))
    for ax in (growth, dead):
        (image,) = ax.images
        assert image.get_array().shape == (3, 6)
        assert image.get_extent() == [19.5, 25.5, 2.5, -0.5]
    assert [label.get_text() for label in growth.get_yticklabels()] == list(MODULES)
    assert growth.images[0].get_array()[2].tolist() == pytest.approx([0, 1, 2, 3, 4, 5])  # powers of ten
    assert dead.images[0].get_clim() == (0, 1)


def test_cells_that_are_not_finite_are_marked(replayed):
    for ax in images(replay_figure(replayed)):
        assert crosses(ax) == [(24, 2), (25, 2)]


def test_a_module_whose_first_output_is_zero_has_no_ratio(replayed):
    zero = dataclasses.replace(replayed, output_rms=np.zeros((3, 6)))
    growth, _ = images(replay_figure(zero))
    assert np.ma.getmaskarray(np.ma.masked_invalid(growth.images[0].get_array())).all()


@pytest.mark.parametrize("n_modules", [0, 1, 300])
@pytest.mark.parametrize("n_steps", [1, 2, 400])
@pytest.mark.filterwarnings("error")
def test_any_size_can_be_drawn(tmp_path, n_modules, n_steps):
    table = np.ones((n_modules, n_steps))
    replayed = ReplayedSteps(
        steps=np.arange(n_steps),
        losses=np.ones(n_steps),
        grad_norms=np.ones(n_steps),
        modules=tuple(f"encoder.{i}.a_rather_long_name_of_a_module" for i in range(n_modules)),
        output_rms=table,
        dead=table,
        nonfinite=np.zeros((n_modules, n_steps), dtype=bool),
        focus=0,
        failure_step=n_steps - 1,
    )
    figure = replay_figure(replayed)
    figure.savefig(tmp_path / "replay.png")
    assert max(figure.get_size_inches()) < 20


@pytest.mark.filterwarnings("error")
def test_nothing_finite_can_be_drawn(replayed, tmp_path):
    nothing = np.full(6, np.nan)
    bad = dataclasses.replace(replayed, losses=nothing, grad_norms=nothing, output_rms=np.full((3, 6), np.inf))
    replay_figure(bad).savefig(tmp_path / "replay.png")
