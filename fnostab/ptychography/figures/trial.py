"""Figures of one trial: its reconstruction beside the truth, and its training history."""

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

ERRORS = "cividis"  # monotonic in lightness, so that the sign of an error shows in greyscale too
WIDTH, ROW_HEIGHT, IMAGE = 7.2, 2.2, 1.67  # inches
SPIKES = {"spike": "D"}  # otherwise taken for validations
LINE_COLOURS = (COLOURS[0], COLOURS[4])  # dark below light, distinguishable in greyscale


@dataclass(frozen=True, eq=False)
class Panel:
    """One panel of `history_figure`.

    Attributes:
        ylabel: label of the vertical axis.
        curves: curves by name, drawn in this order; values that are not finite are gaps.
        marks: points by name, "spike" as open diamonds, others, such as validations,
            as open circles.
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
    """Draw a reconstruction, the truth and the error.

    The first row is the amplitude, the second, with ``phase``, the phase. The columns are the prediction, the truth
    and the error: |predicted| - |true|, or the phase difference wrapped into (-pi, pi] in radians. Prediction and
    truth share the truth's colour scale; a pointed end of the colour bar indicates values beyond it. In error maps
    grey is no error, yellow too large, dark blue too small. A collapsed prediction is a single colour, and its error
    map the negative of the truth.

    Args:
        predicted: reconstruction aligned to the truth, shape (h, w).
        truth: true object, same shape.
        phase: whether to draw the phase.
        named: titles of prediction and truth.
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
    """Draw an image with a colour bar at a (row, column) of the figure.

    Axes are placed explicitly, since matplotlib's layout engines would take most of the drawing time.
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
    bar.ax.yaxis.get_offset_text().set_horizontalalignment("left")  # else it overlaps the image's title
    bar.locator = MaxNLocator(5)
    return ax


def history_figure(
    panels: Sequence[Panel], *, nonfinite_steps: Sequence[int] = (), failure_step: int | None = None
) -> Figure:
    """Draw quantities of a trial over its optimiser steps: what happened just before it failed?

    Panels share the step axis, so a gradient spike is aligned with its effect on the loss. For long curves the
    smallest and largest value in every pixel column are drawn, so no spike is lost. Open circles are validations,
    open diamonds gradient spikes detected by the monitor. Red crosses on the top edge mark steps with a non-finite loss
    or gradient; the dashed line is the failure step. Vertical axes are logarithmic.

    Args:
        panels: panels from top to bottom.
        nonfinite_steps: steps with a non-finite value, marked in all panels.
        failure_step: step of failure, marked in all panels.
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
