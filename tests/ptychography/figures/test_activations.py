import math
from itertools import pairwise

import numpy as np
import pytest

from fnostab.ptychography.figures.activations import activation_figure
from fnostab.record import names

MEAN, STD, DEAD = names.ACTIVATION_MEAN, names.ACTIVATION_STD, names.DEAD_UNITS


def blocks(*means, **more):
    return {f"b{i}": {MEAN: mean, STD: 1.0, **more} for i, mean in enumerate(means)}


def panels(figure):
    return {ax.get_ylabel(): ax for ax in figure.axes}


def curves(ax):
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines if line.get_marker() != "None"]


def test_each_block_of_each_arm_stands_at_its_depth():
    moments = {"initialisation": [blocks(0.0, 0.5)], "after training": [blocks(1.0)]}
    figure = activation_figure({"control": moments, "arm": moments})
    means = panels(figure)["mean of the output"]
    assert curves(means) == [([1, 2], [0.0, 0.5]), ([1], [1.0])] * 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "control",
        "arm",
        "initialisation",
        "after training",
    ]


def test_of_several_seeds_the_median_and_the_range():
    seeds = [blocks(0.0, 1.0), blocks(0.0, 2.0), blocks(0.0, 9.0)]
    ax = panels(activation_figure({"control": {"initialisation": seeds}}))["mean of the output"]
    assert curves(ax) == [([1, 2], [0.0, 2.0])]
    (band,) = ax.collections
    assert (band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max()) == (0.0, 9.0)


def test_a_quantity_has_a_panel_if_a_block_has_it():
    figure = activation_figure({"control": {"initialisation": [blocks(1.0)]}})
    assert len(figure.axes) == 2
    figure = activation_figure({"control": {"initialisation": [blocks(1.0, **{DEAD: 0.5})]}})
    dead = panels(figure)["dead units after the GELU"]
    assert dead.get_ylim()[0] <= 0 < 1 <= dead.get_ylim()[1]


def test_means_over_many_orders_keep_their_sign():
    ax = panels(activation_figure({"control": {"m": [blocks(-0.01, 0.02, 0.03, 4e4)]}}))["mean of the output"]
    assert ax.get_yscale() == "symlog"
    assert math.isclose(max(ax.lines[0].get_ydata()), 4e4)


@pytest.mark.parametrize("largest", [1e3, 1e9])
def test_labels_of_an_axis_over_many_orders_do_not_overlap(largest):
    figure = activation_figure({"control": {"initialisation": [blocks(0.01, 0.02, 0.05, largest)]}})
    figure.draw_without_rendering()
    ax = panels(figure)["mean of the output"]
    assert ax.get_yscale() == "symlog"
    low, high = ax.get_ylim()
    shown = [tick.label1.get_window_extent() for tick in ax.yaxis.get_major_ticks() if low <= tick.get_loc() <= high]
    shown.sort(key=lambda box: box.y0)
    assert len(shown) > 3
    assert all(a.y1 < b.y0 for a, b in pairwise(shown))


@pytest.mark.parametrize("seeds", [[], [{}], [{"b0": {}}], [blocks(0.0), blocks(0.0, 1.0)], [blocks(*np.zeros(3))]])
def test_activations_of_little(seeds):
    activation_figure({"control": {"initialisation": seeds}}).canvas.draw()
    activation_figure({}).canvas.draw()
