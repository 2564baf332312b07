"""Failure rate of each arm as a function of a stress setting, the knob."""

from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

from fnostab.figures.style import NAMED, arm_styles, legend_below
from fnostab.stats.proportions import wilson
from fnostab.stats.rate import Rate

APART = 1.02  # factor between the x positions of neighbouring arms, so that equal rates do not overlap


def stress_figure(arms: Mapping[str, Sequence[tuple[float, Rate]]], knob: str) -> Figure:
    """Draw the failure rate of each arm at each value of the knob: which arm tolerates more?

    Marks are shares of trials that failed, bars their 95 % intervals. An arm whose line rises further to the right
    tolerates more. The dotted line is a rate of one half.

    Args:
        arms: for each arm, control first, (value of the knob, failure rate) from easy to hard.
        knob: name of the setting, the axis label.
    """
    with matplotlib.rc_context(NAMED):
        figure = Figure(figsize=(5.4, 3.2), layout="constrained")
        ax = figure.subplots()
        ax.axhline(0.5, color="0.5", linestyle=":", linewidth=1, zorder=1)
        values = sorted({value for points in arms.values() for value, _ in points})
        for place, (arm, style) in enumerate(arm_styles(arms).items()):
            shift = APART ** (place - (len(arms) - 1) / 2)
            points = [(value * shift, rate) for value, rate in arms[arm] if rate.n]
            rates = [rate.value for _, rate in points]
            drawn = {"color": style.colour, "linestyle": style.line, "marker": style.marker, "label": arm}
            ax.plot([x for x, _ in points], rates, **drawn)
            for x, rate in points:
                if interval := wilson(rate.failed, rate.n):
                    ax.plot((x, x), interval, color=style.colour, linewidth=1, alpha=0.5)
        if any(points and points[0][0] > points[-1][0] for points in arms.values()):
            ax.invert_xaxis()
        ax.set(xscale="log", xlabel=knob, ylabel="trials that failed", ylim=(-0.03, 1.03), xticks=values)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        legend_below(figure, ax.get_legend_handles_labels()[0])
    return figure
