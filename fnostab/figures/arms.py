"""Arms side by side: how often they failed, when, and what their losses are.

Each function takes the arms in the study's order; control comes first and is drawn first.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fnostab.figures.style import COLOURS, INK, LINES, STYLE, cycled, plain_powers
from fnostab.stats.survival import KaplanMeier
from fnostab.table import TrialRow

__all__ = ["FailureRate", "failure_rate_forest", "kaplan_meier_figure", "loss_strip"]

SPREAD = 0.3  # of an arm's seeds to either side of its place, in places
LOG_FROM = 5.0  # ratio of the losses above which their axis is logarithmic
RASTER_FROM = 2000  # points that are drawn as pixels even in vector formats
_STYLE = {**STYLE, "text.parse_math": False}  # the names of arms are names


@dataclass(frozen=True)
class FailureRate:
    """``failed`` of ``n`` trials, with the interval of the rate; None without trials."""

    failed: int
    n: int
    interval: tuple[float, float] | None


def failure_rate_forest(arms: Mapping[str, FailureRate]) -> Figure:
    """Failure rate of each arm with its interval, from top to bottom."""
    with matplotlib.rc_context({**_STYLE, "axes.spines.left": False}):
        figure = Figure(figsize=(5.4, 0.75 + 0.33 * len(arms)), layout="constrained")
        ax = figure.subplots()
        for place, (rate, colour) in enumerate(zip(arms.values(), cycled(COLOURS, len(arms)), strict=True)):
            counts = f"{rate.failed}/{rate.n}" if rate.n else "no outcome"
            ax.text(1.03, place, counts, va="center", transform=ax.get_yaxis_transform())
            if rate.n and rate.interval:
                ax.plot(rate.interval, (place, place), color=colour, linewidth=2.2, solid_capstyle="butt")
                ax.plot(rate.failed / rate.n, place, "s", color=colour, markersize=7)
        ax.set(xlim=(-0.02, 1.02), ylim=(len(arms) - 0.4, -0.6), yticks=range(len(arms)), yticklabels=list(arms))
        ax.set_xlabel("trials that failed, with 95 % interval")
        ax.tick_params(axis="y", length=0)
        ax.grid(False, axis="y")
        ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    return figure


def kaplan_meier_figure(arms: Mapping[str, KaplanMeier | None]) -> Figure:
    """Share of trials without a failure up to each optimiser step, with its pointwise band.

    Ticks mark trials that ended without a failure (censored). Arms without a trial are left out.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.9, 3.4), layout="constrained")
        ax = figure.subplots()
        end = max((float(curve.steps[-1]) for curve in arms.values() if curve is not None), default=1.0)
        styles = zip(cycled(COLOURS, len(arms)), cycled(LINES, len(arms)), strict=True)
        for (arm, curve), (colour, line) in zip(arms.items(), styles, strict=True):
            if curve is None:
                continue
            ax.step(curve.steps, curve.survival, where="post", color=colour, linestyle=line, linewidth=2, label=arm)
            ax.fill_between(curve.steps, curve.low, curve.high, step="post", color=colour, alpha=0.1, linewidth=0)
            left = np.append(curve.at_risk[1:], 0)  # at risk just before the next step
            censored = curve.at_risk - curve.failures > left
            ax.plot(curve.steps[censored], curve.survival[censored], "|", color=colour, markersize=9, markeredgewidth=2)
        ax.set(xlabel="optimiser step", ylabel="trials without failure", xlim=(0, end * 1.02 or 1), ylim=(0, 1.04))
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        _legend(figure, ax)
    return figure


def loss_strip(arms: Mapping[str, Sequence[TrialRow]], *, metric: str) -> Figure:
    """Every trial with a training outcome as a point, a bar at the median of each arm's successes.

    Failures are crosses; those without a finite loss stand in a strip of their own beside the axis.
    The trials of one seed have the same place from top to bottom in all arms.
    """
    counted = {arm: [t for t in trials if t.counts] for arm, trials in arms.items()}
    seeds = sorted({t.seed for trials in counted.values() for t in trials})
    places = np.zeros(1) if len(seeds) == 1 else np.linspace(-SPREAD, SPREAD, len(seeds))
    offsets = dict(zip(seeds, places.tolist(), strict=True))
    losses = [t.loss for trials in counted.values() for t in trials if t.loss is not None and _has_loss(t)]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.9, 1.3 + 0.7 * len(arms)), layout="constrained")
        ax = figure.subplots()
        if losses and min(losses) > 0 and max(losses) > LOG_FROM * min(losses):
            ax.set_xscale("log")
        for place, (trials, colour) in enumerate(zip(counted.values(), cycled(COLOURS, len(arms)), strict=True)):
            _strip(ax, place, trials, offsets, colour)
        labels = [f"{arm}\n{sum(not t.failed for t in trials)}/{len(trials)} ok" for arm, trials in counted.items()]
        ax.set(ylim=(len(arms) - 0.45, -0.55), yticks=range(len(arms)), yticklabels=labels, xlabel=metric)
        ax.tick_params(axis="y", length=0)
        ax.grid(False, axis="y")
        if ax.get_xscale() == "log":
            plain_powers(ax.xaxis)
        for marker, label in (("o", "success"), ("x", "failure")):
            ax.plot([], [], marker, color=INK, label=label)
        ax.plot([], [], color=INK, linewidth=2.2, label="median of successes")
        _legend(figure, ax)
    return figure


def _has_loss(trial: TrialRow) -> bool:
    return trial.loss is not None and math.isfinite(trial.loss)


def _strip(ax: Axes, place: int, trials: Sequence[TrialRow], offsets: Mapping[int, float], colour: str) -> None:
    raster = len(trials) > RASTER_FROM
    for failed, marker, size in ((False, "o", 5), (True, "x", 6.5)):
        shown = [t for t in trials if t.failed is failed and _has_loss(t)]
        style: Any = {"color": colour, "markersize": size, "rasterized": raster, "alpha": 0.85}
        ax.plot([t.loss or 0.0 for t in shown], [place + offsets[t.seed] for t in shown], marker, **style)
    without = [t for t in trials if not _has_loss(t)]
    if without:
        transform = ax.get_yaxis_transform()
        heights = [place + offsets[t.seed] for t in without]
        ax.plot([1.05] * len(without), heights, "x", color=colour, markersize=6.5, transform=transform, clip_on=False)
        ax.text(1.09, place, "no finite\nloss", va="center", fontsize=7.5, transform=transform)
    successes = [t.loss for t in trials if not t.failed and t.loss is not None and _has_loss(t)]
    if successes:
        ax.vlines(float(np.median(successes)), place - 0.42, place + 0.42, color=INK, linewidth=2.2, zorder=1)


def _legend(figure: Figure, ax: Axes) -> None:
    if ax.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=3, fontsize=8, handlelength=2.6)
