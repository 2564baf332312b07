"""Figure of a replayed failure: the state of every module at each step."""

from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from fnostab.figures.style import ALERT, COLOURS, INK, NAMED, legend_below, mark_nonfinite, plain_powers

LARGEST_RATIO = 3  # range of the colour scale of output ratios, in powers of ten
MOST_NAMES = 40  # row labels of a heat map
LONGEST_NAME = 28


@dataclass(frozen=True, eq=False)
class ReplayedSteps:
    """Arrays of the replayed steps.

    Attributes:
        steps: consecutive optimiser steps, shape (n,).
        losses: training losses, shape (n,).
        grad_norms: gradient norms before clipping, shape (n,).
        modules: module names in execution order.
        output_rms: root mean square of each module's output, shape (modules, n); NaN where missing.
        dead: share of constant channels, shape (modules, n); NaN where missing.
        nonfinite: whether the output or gradient is not finite, bool of shape (modules, n).
        focus: step to look at.
        failure_step: step at which the trial failed; may be outside ``steps``.
    """

    steps: NDArray[np.int64]
    losses: NDArray[np.float64]
    grad_norms: NDArray[np.float64]
    modules: tuple[str, ...]
    output_rms: NDArray[np.float64]
    dead: NDArray[np.float64]
    nonfinite: NDArray[np.bool_]
    focus: int
    failure_step: int


def replay_figure(replay: ReplayedSteps) -> Figure:
    """Draw a replay: where did the failure begin?

    Top: loss and gradient norm on logarithmic axes. The solid vertical line is the step to look at, the dashed line
    the step at which the trial failed; red crosses on the top edge mark values that were not finite. Bottom: heat maps
    with a row per module, in the order of the forward pass, and a column per step. The left one is the root mean
    square of the output relative to the first step (blue: smaller, red: larger), the right one the share of dead
    channels. A red cross marks a non-finite output or gradient; grey means no value.
    """
    rows = min(max(len(replay.modules), 4), MOST_NAMES)
    with matplotlib.rc_context(NAMED):
        figure = Figure(figsize=(9, 3.4 + 0.28 * rows), layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=[2.6, 0.8 + 0.28 * rows])
        curves, maps = parts
        axes = curves.subplots(1, 2)
        _curve(axes[0], replay, replay.losses, "training loss", COLOURS[0])
        _curve(axes[1], replay, replay.grad_norms, "gradient norm", COLOURS[1])
        legend_below(curves, [h for ax in axes for h in ax.get_legend_handles_labels()[0]])
        left, right = maps.subplots(1, 2, sharey=True)
        shown = _map(
            left, replay, _growth(replay.output_rms), "RdBu_r", {"vmin": -LARGEST_RATIO, "vmax": LARGEST_RATIO}
        )
        bar = maps.colorbar(shown, ax=left, location="bottom", extend="both", aspect=40, pad=0.02)
        bar.set_label("output rms over that of the first step")
        bar.set_ticks([-3, -2, -1, 0, 1, 2, 3], labels=["0.001", "0.01", "0.1", "1", "10", "100", "1000"])
        shown = _map(right, replay, replay.dead, "cividis", {"vmin": 0.0, "vmax": 1.0})
        bar = maps.colorbar(shown, ax=right, location="bottom", aspect=40, pad=0.02, format=PercentFormatter(1))
        bar.set_label("dead channels of the output")
        _name_rows(left, replay.modules)
    return figure


def _curve(ax: Axes, replay: ReplayedSteps, values: NDArray[np.float64], label: str, colour: str) -> None:
    finite = np.isfinite(values)
    positive = np.where(finite & (values > 0), values, np.nan)
    ax.plot(replay.steps, positive, ".-", color=colour, linewidth=0.9, markersize=4)
    ax.set(yscale="log", ylabel=label, xlabel="optimiser step")
    _mark(ax, replay)
    mark_nonfinite(ax, replay.steps[~finite])
    ax.set_xlim(replay.steps[0] - 0.5, replay.steps[-1] + 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    plain_powers(ax.yaxis)


def _mark(ax: Axes, replay: ReplayedSteps, colour: str = INK) -> None:
    ax.axvline(replay.focus, color=colour, linewidth=0.9, label=f"step {replay.focus}, to look at")
    if replay.failure_step in replay.steps:
        label = f"step {replay.failure_step}, where the trial failed"
        ax.axvline(replay.failure_step, color=colour, linestyle="--", linewidth=0.9, label=label)


def _growth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """log10 of ``values`` (modules, n) relative to their first column; NaN where that is not finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = np.log10(values / values[:, :1])
    growth[~np.isfinite(growth)] = np.nan
    return growth


def _map(ax: Axes, replay: ReplayedSteps, values: NDArray[np.float64], colours: str, scale: dict[str, Any]) -> Any:
    first, last = replay.steps[0] - 0.5, replay.steps[-1] + 0.5
    ax.set_facecolor("0.8")
    extent = (first, last, max(len(replay.modules), 1) - 0.5, -0.5)
    values = values if values.size else np.full((1, replay.steps.size), np.nan)
    shown = ax.imshow(values, cmap=colours, aspect="auto", interpolation="nearest", extent=extent, **scale)
    modules, columns = np.nonzero(replay.nonfinite)
    ax.plot(replay.steps[columns], modules, "x", color=ALERT, markersize=5, markeredgewidth=1.4)
    _mark(ax, replay, "0.6")  # visible on light and dark cells
    ax.set(xlabel="optimiser step", xlim=(first, last))
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.grid(False)
    return shown


def _name_rows(ax: Axes, modules: tuple[str, ...]) -> None:
    every = -(-len(modules) // MOST_NAMES) or 1
    short = [name if len(name) <= LONGEST_NAME else f"…{name[1 - LONGEST_NAME :]}" for name in modules]
    ax.set_yticks(range(0, len(modules), every), labels=short[::every], fontsize=7.5)
