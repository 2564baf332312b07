"""Gradient norms of an arm's seeds over the training, so that no spike is lost.

A curve of 20,000 steps has more points than a screen has columns. Sampling it loses what matters: a
single step at 4e4 on a flat curve is drawn only by luck. Here each seed is reduced to its largest
value in each window of steps, and the fan is made of those.
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

__all__ = ["Curve", "Fan", "grad_norm_fan", "make_fan"]

WINDOWS = 500  # at most, in one fan


@dataclass(frozen=True, eq=False)
class Curve:
    """Gradient norms of one trial.

    Attributes:
        steps: 0-based optimiser steps, shape (n,).
        values: finite norms at these, shape (n,).
        nonfinite_steps: at which the norm was not finite, shape (m,).
    """

    seed: int
    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    nonfinite_steps: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Fan:
    """Gradient norms of many seeds, in windows of ``window_steps`` steps.

    Each seed counts with its largest norm in a window. Arrays have the shape (windows,) and are NaN
    where no seed has a finite value.

    Attributes:
        steps: first step of each window.
        low: lower quartile over the seeds.
        maximum: over the seeds.
        nonfinite: how many seeds had a norm that was not finite.
        peak: (step, seed, norm) of the largest of all; None if there is none.
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


def make_fan(curves: Sequence[Curve], windows: int = WINDOWS) -> Fan:
    """Reduce curves to at most ``windows`` windows; with fewer steps than that, each step is its own.

    Of curves that hold only the largest norm in every so many steps, windows are multiples of these.
    """
    last = max((int(each.max()) for c in curves for each in (c.steps, c.nonfinite_steps) if each.size), default=-1)
    seen_at = [np.union1d(c.steps, c.nonfinite_steps) for c in curves]
    spacing = max((int(np.median(np.diff(steps))) for steps in seen_at if steps.size > 1), default=1)
    width = spacing * max(1, math.ceil((last + 1) / (windows * spacing)))
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
    """Gradient norms of one arm over the training: does any seed spike, and do most of them?

    The thick line is the median over the seeds, the band their quartiles, the thin line the largest of
    all; a dot marks the largest norm of the whole training. A thin line far above a flat band is one
    seed's spike; a band that rises is the arm's habit. Red crosses on the top edge are windows in which
    a norm was not finite. The axis of norms is logarithmic.

    Args:
        fan: of one arm.
        colour: of the arm.
        limits: of the axis of norms, so that arms can be compared; None fits this one.
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
