"""Comparisons of arms: how often they failed, when they failed, and their losses.

Each function takes the arms in the study's order, the control first, and draws them in that order.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from fnostab.figures.style import (
    ALERT,
    FAILED,
    INK,
    LOG_FROM,
    NAMED,
    NONFINITE,
    ArmStyle,
    arm_styles,
    legend_below,
    plain_powers,
)
from fnostab.record.outcomes import Outcome
from fnostab.record.plurals import counted
from fnostab.record.table import TrialRow
from fnostab.stats.proportions import wilson
from fnostab.stats.rate import Rate
from fnostab.stats.survival import KaplanMeier

SPREAD = 0.3  # offset of an arm's outermost seeds from its row, in rows
RASTER_FROM = 2000  # number of points above which they are rasterised in vector formats
BAND_EDGE: Any = {"linewidth": 0.6, "alpha": 0.45}
KINDS: Any = {  # marker style of each kind of trial in `loss_strip`
    "success": {"marker": "o", "markersize": 5},
    "failure": FAILED,
    NONFINITE: {"marker": "x", "markersize": 6.5, "markeredgewidth": 1.8, "color": ALERT},
}


def failure_rate_forest(arms: Mapping[str, Rate]) -> Figure:
    """Draw the failure rate of each arm: which fails less often, and could that be luck?

    A mark is the share of trials that failed, a bar its 95 % interval, with the counts on the right. The dotted line
    is the rate of the first arm, the control: an arm whose whole bar is left of it fails less often than the control
    did. If the bars overlap a lot, the study is too small to tell.
    """
    with matplotlib.rc_context({**NAMED, "axes.spines.left": False}):
        figure = Figure(figsize=(5.4, 0.75 + 0.33 * len(arms)), layout="constrained")
        ax = figure.subplots()
        control = next(iter(arms.values()), None)
        if control is not None and control.n and len(arms) > 1:
            ax.axvline(control.value, color=INK, linestyle=":", linewidth=1, zorder=1)
        for place, (arm, style) in enumerate(arm_styles(arms).items()):
            rate = arms[arm]
            ax.text(1.03, place, str(rate) if rate.n else "no outcome", va="center", transform=ax.get_yaxis_transform())
            if interval := wilson(rate.failed, rate.n):
                ax.plot(interval, (place, place), color=style.colour, linewidth=2.2, solid_capstyle="butt")
                ax.plot(rate.value, place, style.marker, color=style.colour, markersize=7)
        ax.set(xlim=(-0.02, 1.02), ylim=(len(arms) - 0.4, -0.6), yticks=range(len(arms)), yticklabels=list(arms))
        ax.set_xlabel("trials that failed, with 95 % interval")
        ax.tick_params(axis="y", length=0)
        ax.grid(False, axis="y")
        ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    return figure


def kaplan_meier_figure(
    arms: Mapping[str, KaplanMeier | None], nonfinite_steps: Mapping[str, Sequence[int]] | None = None
) -> Figure:
    """Draw the share of trials without a failure up to each optimiser step: when do trials fail?

    A curve drops where a trial of the arm fails; a red cross marks failures by a non-finite value. Ticks mark
    trials that ended without a failure (censored). Bands are pointwise 95 % intervals. Early drops suggest a problem
    of the initialisation, late ones slow growth. Arms without trials are left out.

    Args:
        arms: curve of each arm; None without trials.
        nonfinite_steps: for each arm, the steps of failures by a non-finite value.
    """
    with matplotlib.rc_context(NAMED):
        figure = Figure(figsize=(4.9, 3.4), layout="constrained")
        ax = figure.subplots()
        end = max((float(curve.steps[-1]) for curve in arms.values() if curve is not None), default=1.0)
        for place, (arm, style) in enumerate(arm_styles(arms).items()):
            curve = arms[arm]
            if curve is not None:
                width = max(1.4, 2.8 - 0.6 * place)  # later curves are thinner, so that coinciding curves all show
                _survival(ax, arm, curve, style, width, (nonfinite_steps or {}).get(arm, ()))
        ax.set(xlabel="optimiser step", ylabel="trials without failure", xlim=(0, end * 1.02 or 1), ylim=(0, 1.04))
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        legend_below(figure, _marks_last(ax.get_legend_handles_labels()[0]))
    return figure


def _survival(
    ax: Axes, arm: str, curve: KaplanMeier, style: ArmStyle, width: float, nonfinite_steps: Sequence[int]
) -> None:
    look: Any = {"color": style.colour, "linestyle": style.line, "where": "post"}
    ax.step(curve.steps, curve.survival, linewidth=width, label=arm, **look)
    ax.fill_between(curve.steps, curve.low, curve.high, step="post", color=style.colour, alpha=0.1, linewidth=0)
    for edge in (curve.low, curve.high):
        ax.step(curve.steps, edge, **look, **BAND_EDGE)
    left = np.append(curve.at_risk[1:], 0)  # at risk just before the next step
    censored = curve.at_risk - curve.failures > left
    ticks: Any = {"color": style.colour, "markersize": 9, "markeredgewidth": 2}
    if censored.any():  # a line without points that is not clipped would lie at the figure's corner, and keep it free
        ax.plot(curve.steps[censored], curve.survival[censored], "|", clip_on=False, **ticks)
    if nonfinite_steps:
        at = np.searchsorted(curve.steps, nonfinite_steps)
        crosses = {key: value for key, value in KINDS[NONFINITE].items() if key != "marker"}
        ax.plot(curve.steps[at], curve.survival[at], "x", label=NONFINITE, clip_on=False, zorder=5, **crosses)


def _marks_last(handles: Sequence[Any]) -> list[Any]:
    return sorted(handles, key=lambda handle: handle.get_label() == NONFINITE)


def loss_strip(arms: Mapping[str, Sequence[TrialRow]], *, metric: str, judged: bool = True) -> Figure:
    """Draw the loss of every trial with a training outcome, successes and failures.

    A dot is a success, an open triangle a failure, a red cross a failure by a non-finite value. A bar marks the
    median of an arm's successes; the number of successes is in the arm's label. Failures without a finite loss are
    drawn beside the axis. Trials of one seed have the same vertical offset in all arms.

    Args:
        arms: trials of each arm, control first.
        metric: name of the loss, the axis label.
        judged: whether failures were judged; if not, every dot is a run.
    """
    shown = {arm: [t for t in trials if t.counts] for arm, trials in arms.items()}
    seeds = sorted({t.seed for trials in shown.values() for t in trials})
    places = np.zeros(1) if len(seeds) == 1 else np.linspace(-SPREAD, SPREAD, len(seeds))
    offsets = dict(zip(seeds, places.tolist(), strict=True))
    losses = [t.loss for trials in shown.values() for t in trials if t.loss is not None and _has_loss(t)]
    with matplotlib.rc_context(NAMED):
        figure = Figure(figsize=(4.9, 1.3 + 0.7 * len(arms)), layout="constrained")
        ax = figure.subplots()
        if losses and min(losses) > 0 and max(losses) > LOG_FROM * min(losses):
            ax.set_xscale("log")
        for place, (arm, style) in enumerate(arm_styles(arms).items()):
            _strip(ax, place, shown[arm], offsets, style.colour)
        counts = {arm: (sum(not t.failed for t in trials), len(trials)) for arm, trials in shown.items()}
        labels = [f"{arm}\n{ok}/{n} ok" if judged else f"{arm}\n{counted(n, 'run')}" for arm, (ok, n) in counts.items()]
        ax.set(ylim=(len(arms) - 0.45, -0.55), yticks=range(len(arms)), yticklabels=labels, xlabel=metric)
        ax.tick_params(axis="y", length=0)
        ax.grid(False, axis="y")
        if ax.get_xscale() == "log":
            plain_powers(ax.xaxis)
        kinds = {_kind(t) for trials in shown.values() for t in trials}
        names = {} if judged else {"success": "run"}
        handles = [
            Line2D([], [], label=names.get(k, k), linestyle="", **{"color": INK, **KINDS[k]})
            for k in KINDS
            if k in kinds
        ]
        if "success" in kinds:
            of = "of successes" if judged else "of runs"
            handles.append(Line2D([], [], color=INK, linewidth=1.8, label=f"median {of}"))
        legend_below(figure, handles)
    return figure


def _has_loss(trial: TrialRow) -> bool:
    return trial.loss is not None and math.isfinite(trial.loss)


def _kind(trial: TrialRow) -> str:
    if trial.outcome is Outcome.NONFINITE:
        return NONFINITE
    return "failure" if trial.failed else "success"


def _strip(ax: Axes, place: int, trials: Sequence[TrialRow], offsets: Mapping[int, float], colour: str) -> None:
    common: Any = {"linestyle": "", "rasterized": len(trials) > RASTER_FROM, "alpha": 0.85, "color": colour}
    for kind, look in KINDS.items():
        of_kind = [t for t in trials if _kind(t) == kind]
        for inside in (True, False):  # on the axis, or beside it
            shown = [t for t in of_kind if _has_loss(t) is inside]
            if shown:
                losses = [(t.loss or 0.0) if inside else 1.05 for t in shown]
                beside = {} if inside else {"transform": ax.get_yaxis_transform(), "clip_on": False}
                ax.plot(losses, [place + offsets[t.seed] for t in shown], **{**common, **look, **beside})
    if not all(map(_has_loss, trials)):
        ax.text(1.09, place, "no finite\nloss", va="center", fontsize=7.5, transform=ax.get_yaxis_transform())
    successes = [t.loss for t in trials if not t.failed and t.loss is not None and _has_loss(t)]
    if successes:
        ax.vlines(float(np.median(successes)), place - 0.42, place + 0.42, color=INK, linewidth=1.8, zorder=3)
