"""What one trial keeps: its reconstruction beside the truth, its history, and its activations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fnostab.figures.decimation import alone, decimate
from fnostab.figures.style import COLOURS, INK, NAMED, STYLE, arm_styles, legend_below, mark_nonfinite, plain_powers

__all__ = ["Panel", "Series", "activation_figure", "history_figure", "reconstruction_figure"]

ERRORS = "cividis"  # its lightness rises all the way, so that the sign of an error is seen in grey too
LINE_COLOURS = (COLOURS[0], COLOURS[4])  # dark under light: both are seen in grey

Series = tuple[NDArray[np.int64], NDArray[np.float64]]  # steps, rising, and values, both (n,)


@dataclass(frozen=True, eq=False)
class Panel:
    """What `history_figure` draws over one axis.

    Attributes:
        ylabel: of the axis.
        curves: by name, the first below the others; values that are not finite are gaps.
        marks: by name, as open circles: validations, spikes.
    """

    ylabel: str
    curves: Mapping[str, Series]
    marks: Mapping[str, Series] = field(default_factory=dict)


def reconstruction_figure(predicted: NDArray[np.complex64], truth: NDArray[np.complex64], phase: bool) -> Figure:
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
    """
    rows = [("amplitude", "", np.abs(predicted), np.abs(truth))]
    if phase:
        rows.append(("phase", " / rad", np.angle(predicted), np.angle(truth)))
    with matplotlib.rc_context({**STYLE, "axes.grid": False, "axes.spines.left": False, "axes.spines.bottom": False}):
        figure = Figure(figsize=(7.2, 0.2 + 2.1 * len(rows)), layout="constrained")
        axes = figure.subplots(len(rows), 3, squeeze=False)
        for line, (name, unit, ours, theirs) in zip(axes, rows, strict=True):
            error = np.angle(np.exp(1j * (ours - theirs))) if name == "phase" else ours - theirs
            limit = float(np.abs(error).max()) or 1.0
            same = (theirs.min(), theirs.max())
            _image(line[0], ours, f"predicted {name}{unit}", "viridis", same)
            _image(line[1], theirs, f"true {name}{unit}", "viridis", same)
            _image(line[2], error, f"{name} error{unit}", ERRORS, (-limit, limit))
            line[2].set_xlabel(f"mean absolute error {np.abs(error).mean():.2g}", fontsize=8)
    return figure


def _image(ax: Axes, image: NDArray[Any], title: str, colours: str, limits: tuple[float, float]) -> None:
    shown = ax.imshow(image, cmap=colours, vmin=limits[0], vmax=limits[1])
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=9)
    rounding = 1e-6 * (limits[1] - limits[0])
    below, above = image.min() < limits[0] - rounding, image.max() > limits[1] + rounding
    tips = "both" if below and above else "min" if below else "max" if above else "neither"
    assert ax.figure is not None
    bar = ax.figure.colorbar(shown, ax=ax, shrink=0.9, extend=tips)
    bar.ax.tick_params(labelsize=7.5)
    bar.locator = MaxNLocator(5)


def history_figure(
    panels: Sequence[Panel], *, nonfinite_steps: Sequence[int] = (), failure_step: int | None = None
) -> Figure:
    """A trial over its optimiser steps: what happened just before it failed?

    Panels share their steps, so that a spike of the gradient stands under what it did to the loss. Of
    long curves the smallest and the largest value in every column of pixels are drawn, so no spike is
    left out. Open circles are validations, or gradient spikes as the monitor counts them. Red crosses on
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
        ax.plot(*marks, "o", zorder=3, label=name, **look)
    plain_powers(ax.yaxis)


def activation_figure(arms: Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]]) -> Figure:
    """Mean and standard deviation of every block's output against its depth: do activations drift?

    At the left a mean that grows from block to block is the drift that y = x + GELU(...) is suspected
    of; a flat line at 0 is none. At the right, on a log axis, a straight rise is a spread that grows by
    a factor in each block. Dashed with open marks: at initialisation. Solid: after training.

    Args:
        arms: for each arm, for each moment ("initialisation", "after training"), (mean, standard
            deviation) of every block's output, in the order of depth.
    """
    with matplotlib.rc_context(NAMED):
        figure = Figure(figsize=(7.2, 3.2), layout="constrained")
        means, stds = figure.subplots(1, 2)
        for place, (arm, style) in enumerate(arm_styles(arms).items()):
            size = max(4.0, 8 - 1.5 * place)  # where arms coincide, those below are larger
            for (line, face), blocks in zip((("--", "white"), ("-", style.colour)), arms[arm].values(), strict=False):
                depth = range(1, len(blocks) + 1)
                look: Any = {"linestyle": line, "marker": style.marker, "markersize": size, "color": style.colour}
                means.plot(depth, [mean for mean, _ in blocks.values()], markerfacecolor=face, **look)
                stds.plot(depth, [std for _, std in blocks.values()], markerfacecolor=face, **look)
        means.set(xlabel="block", ylabel="mean of the output")
        means.axhline(0, color=INK, linewidth=0.6)
        stds.set(xlabel="block", ylabel="standard deviation of the output", yscale="log")
        plain_powers(stds.yaxis)
        for ax in (means, stds):
            ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        legend_below(figure, _activation_handles(arms), columns=5)
    return figure


def _activation_handles(arms: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    handles = [
        Line2D([], [], color=style.colour, marker=style.marker, markersize=5, linestyle="", label=arm)
        for arm, style in arm_styles(arms).items()
    ]
    moments = list(dict.fromkeys(moment for of_arm in arms.values() for moment in of_arm))
    for line, face, moment in zip(("--", "-"), ("white", INK), moments, strict=False):
        look: Any = {"linestyle": line, "marker": "o", "markersize": 5, "markerfacecolor": face, "color": INK}
        handles.append(Line2D([], [], label=moment, **look))
    return handles
