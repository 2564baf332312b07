"""Figures that one trial keeps: its reconstruction beside the truth, and its history."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fnostab.figures.decimation import Series, alone, decimate
from fnostab.figures.style import COLOURS, INK, STYLE, legend_below, mark_nonfinite, plain_powers

__all__ = ["Panel", "history_figure", "reconstruction_figure"]

ERRORS = "cividis"  # its lightness rises all the way, so that the sign of an error is seen in grey too
WIDTH, ROW_HEIGHT, IMAGE = 7.2, 2.2, 1.67  # inches
SPIKES = {"spike": "D"}  # a marker of their own: under validations they would pass for more of these
LINE_COLOURS = (COLOURS[0], COLOURS[4])  # dark under light: both are seen in grey


@dataclass(frozen=True, eq=False)
class Panel:
    """Curves and marks that `history_figure` draws over one axis.

    Attributes:
        curves: by name, the first below the others; values that are not finite are gaps.
        marks: by name: "spike" as open diamonds, others, such as validations, as open circles.
    """

    ylabel: str
    curves: Mapping[str, Series]
    marks: Mapping[str, Series] = field(default_factory=dict)


def reconstruction_figure(
    predicted: NDArray[np.complex64],
    truth: NDArray[np.complex64],
    phase: bool,
    named: tuple[str, str] = ("predicted", "true"),
) -> Figure:
    """A reconstruction beside the truth, and where it is wrong.

    Amplitude above and, if it is asked for, phase below; left to right the prediction, the truth, and
    the error |predicted| - |true|, or the phase difference wrapped into (-pi, pi], in radians. Prediction and truth
    share the truth's scale, and a colour bar that ends in a tip has values beyond it. In an error map
    grey is no error, yellow too large, dark blue too small. A prediction that has collapsed is one
    plain colour, and its error map the negative of the truth.

    Args:
        predicted: aligned to the truth, shape (h, w).
        truth: same shape.
        phase: whether there is one to compare.
        named: what the two are called.
    """
    rows = [("amplitude", "", np.abs(predicted), np.abs(truth))]
    if phase:
        rows.append(("phase", " / rad", np.angle(predicted), np.angle(truth)))
    with matplotlib.rc_context({**STYLE, "axes.grid": False, "axes.spines.left": False, "axes.spines.bottom": False}):
        figure = Figure(figsize=(WIDTH, ROW_HEIGHT * len(rows)))
        for line, (name, unit, ours, theirs) in enumerate(rows):
            places = [(line, column) for column in range(3)]
            error = np.angle(np.exp(1j * (ours - theirs))) if name == "phase" else ours - theirs
            limit = float(np.abs(error).max()) or 1.0
            same = (theirs.min(), theirs.max())
            _image(figure, places[0], ours, f"{named[0]} {name}{unit}", "viridis", same)
            _image(figure, places[1], theirs, f"{named[1]} {name}{unit}", "viridis", same)
            ax = _image(figure, places[2], error, f"{name} error{unit}", ERRORS, (-limit, limit))
            ax.set_xlabel(f"mean absolute error {np.abs(error).mean():.2g}", fontsize=8)
    return figure


def _image(
    figure: Figure, place: tuple[int, int], image: NDArray[Any], title: str, colours: str, limits: tuple[float, float]
) -> Axes:
    """An image in its line and column, with a colour bar.

    Where they lie is known, so they are put there: to let matplotlib find it out takes longer than all else.
    """
    line, column = place
    width, height = figure.get_size_inches()
    left, bottom = 0.1 + column * (WIDTH - 0.1) / 3, height - (line + 1) * ROW_HEIGHT + 0.27

    def axes(x: float, y: float, w: float, h: float) -> Axes:
        return figure.add_axes(((left + x) / width, (bottom + y) / height, w / width, h / height))

    ax = axes(0, 0, IMAGE, IMAGE)
    shown = ax.imshow(image, cmap=colours, vmin=limits[0], vmax=limits[1])
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=9)
    rounding = 1e-6 * (limits[1] - limits[0])
    below, above = image.min() < limits[0] - rounding, image.max() > limits[1] + rounding
    tips = "both" if below and above else "min" if below else "max" if above else "neither"
    bar = figure.colorbar(shown, cax=axes(IMAGE + 0.06, 0.05 * IMAGE, 0.09, 0.9 * IMAGE), extend=tips)
    bar.ax.tick_params(labelsize=7.5)
    bar.ax.yaxis.get_offset_text().set_horizontalalignment("left")  # else it lies on the image's title
    bar.locator = MaxNLocator(5)
    return ax


def history_figure(
    panels: Sequence[Panel], *, nonfinite_steps: Sequence[int] = (), failure_step: int | None = None
) -> Figure:
    """A trial over its optimiser steps: what happened just before it failed?

    Panels share their steps, so that a spike of the gradient stands under what it did to the loss. Of
    long curves the smallest and the largest value in every column of pixels are drawn, so no spike is
    left out. Open circles are validations, open diamonds gradient spikes as the monitor counts them. Red crosses on
    the top edge are steps whose loss or gradient was not finite; the dashed line is the step of failure.
    Axes are logarithmic.

    Args:
        panels: from top to bottom.
        nonfinite_steps: marked in all panels.
        failure_step: marked in all panels.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 0.6 + 2.2 * len(panels)), layout="constrained")
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for ax, panel in zip(axes, panels, strict=True):
            _history(ax, panel)
            mark_nonfinite(ax, nonfinite_steps)
            if failure_step is not None:
                ax.axvline(failure_step, color=INK, linestyle="--", linewidth=0.9, label="failure")
        axes[-1].set_xlabel("optimiser step")
        axes[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True))
        legend_below(figure, [h for ax in axes for h in ax.get_legend_handles_labels()[0]], columns=7)
    return figure


def _history(ax: Axes, panel: Panel) -> None:
    ax.set(ylabel=panel.ylabel, yscale="log")
    for colour, (name, curve) in zip(LINE_COLOURS, panel.curves.items(), strict=False):
        steps, values = decimate(*curve)
        ax.plot(steps, values, color=colour, linewidth=0.9, label=name)
        lone = alone(values)
        ax.plot(steps[lone], values[lone], ".", color=colour, markersize=5)
    for name, marks in panel.marks.items():
        look: Any = {"color": INK, "markersize": 5, "markerfacecolor": "none"}
        ax.plot(*marks, SPIKES.get(name, "o"), zorder=3, label=name, **look)
    plain_powers(ax.yaxis)
