"""Fan chart of the gradient norms of an arm's seeds, in which no spike is lost.

A curve of 20,000 steps has more points than a screen has columns, and sampling it would miss most single-step spikes.
Each seed is therefore reduced to its largest value in each window of steps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fnostab.figures.decimation import alone
from fnostab.figures.style import COLOURS, INK, STYLE, legend_below, mark_nonfinite, plain_powers

WINDOWS = 500  # maximum number in one fan


@dataclass(frozen=True, eq=False)
class Curve:
    """Gradient norms of one trial.

    Attributes:
        steps: 0-based optimiser steps, shape (n,).
        values: finite norms at these steps, shape (n,).
        nonfinite_steps: steps at which the norm was not finite, shape (m,).
    """

    seed: int
    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    nonfinite_steps: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Fan:
    """Quantiles over seeds of the largest gradient norm in each window of ``window_steps`` steps.

    Arrays have the shape (windows,) and are NaN where no seed has a finite value.

    Attributes:
        steps: first step of each window.
        low: lower quartile over the seeds.
        median: median over the seeds.
        high: upper quartile over the seeds.
        maximum: maximum over the seeds.
        nonfinite: number of seeds with a non-finite norm.
        n_seeds: number of seeds.
        peak: (step, seed, norm) of the largest norm; None without norms.
    """

    window_steps: int
    steps: NDArray[np.int64]
    low: NDArray[np.float64]
    median: NDArray[np.float64]
    high: NDArray[np.float64]
    maximum: NDArray[np.float64]
    nonfinite: NDArray[np.int64]
    n_seeds: int
    peak: tuple[int, int, float] | None


def make_fan(curves: Sequence[Curve]) -> Fan:
    """Reduce curves to a fan of at most `WINDOWS` windows; with fewer steps, each step is a window.

    If the curves are already thinned to one norm per interval of steps, the window is a multiple of that interval.
    """
    last = max((int(each.max()) for c in curves for each in (c.steps, c.nonfinite_steps) if each.size), default=-1)
    seen_at = [np.union1d(c.steps, c.nonfinite_steps) for c in curves]
    spacing = max((int(np.median(np.diff(steps))) for steps in seen_at if steps.size > 1), default=1)
    width = spacing * max(1, math.ceil((last + 1) / (WINDOWS * spacing)))
    steps = np.arange(0, last + 1, width)
    largest = np.full((len(curves), steps.size), np.nan)
    nonfinite = np.zeros(steps.size, dtype=np.int64)
    for row, curve in zip(largest, curves, strict=True):
        np.fmax.at(row, curve.steps // width, curve.values)
        nonfinite[np.unique(curve.nonfinite_steps // width)] += 1
    seen = np.isfinite(largest).any(axis=0)
    quantiles = np.full((4, steps.size), np.nan)
    if seen.any():
        quantiles[:, seen] = np.nanquantile(largest[:, seen], (0.25, 0.5, 0.75, 1.0), axis=0)
    low, median, high, maximum = quantiles
    return Fan(width, steps, low, median, high, maximum, nonfinite, len(curves), _peak(curves))


def grad_norm_fan(fan: Fan, *, colour: str = COLOURS[0], limits: tuple[float, float] | None = None) -> Figure:
    """Draw the gradient norms of one arm during training: do single seeds spike, or most of them?

    The thick line is the median over seeds, the band their quartiles, the thin line the maximum; a dot marks the
    largest norm of the whole training. A thin line far above a flat band is the spike of a single seed; a rising band
    is typical of the arm. Red crosses on the top edge mark windows with a non-finite norm. The norm axis is
    logarithmic.

    Args:
        fan: fan of the arm.
        colour: colour of the arm.
        limits: limits of the norm axis, to compare arms; None fits them to this arm.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.8, 2.8), layout="constrained")
        ax = figure.subplots()
        ax.set(xlabel="optimiser step", ylabel="gradient norm before clipping", yscale="log")
        low, median, high, maximum = (
            np.where(each > 0, each, np.nan) for each in (fan.low, fan.median, fan.high, fan.maximum)
        )
        ax.plot(fan.steps, maximum, color=INK, linewidth=0.7, alpha=0.75, label="maximum")
        lone = alone(maximum)
        ax.plot(fan.steps[lone], maximum[lone], ".", color=INK, markersize=3)
        ax.fill_between(fan.steps, low, high, color=colour, alpha=0.35, linewidth=0, label="quartiles")
        ax.plot(fan.steps, median, color=colour, linewidth=1.3, label="median")
        if fan.peak is not None and fan.peak[2] > 0:
            ax.plot(fan.peak[0] // fan.window_steps * fan.window_steps, fan.peak[2], "o", color=INK, markersize=3.5)
        mark_nonfinite(ax, fan.steps[fan.nonfinite > 0])
        if limits is not None:
            ax.set_ylim(limits)
        if fan.steps.size:
            ax.set_xlim(0, max(1, fan.steps[-1]) * 1.02)
        plain_powers(ax.yaxis)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        legend_below(figure, ax.get_legend_handles_labels()[0], handle_length=1.4)
    return figure


def _peak(curves: Sequence[Curve]) -> tuple[int, int, float] | None:
    best: tuple[int, int, float] | None = None
    for curve in curves:
        if curve.values.size:
            at = int(np.argmax(curve.values))
            if best is None or curve.values[at] > best[2]:
                best = (int(curve.steps[at]), curve.seed, float(curve.values[at]))
    return best
