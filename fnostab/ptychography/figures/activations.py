"""Figure of block statistics against depth, which shows whether activations drift."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter, SymmetricalLogLocator
from numpy.typing import NDArray

from fnostab.figures.style import INK, LOG_FROM, NAMED, ArmStyle, arm_styles, legend_below, plain_powers
from fnostab.record import names

PANELS = {
    names.ACTIVATION_MEAN: "mean of the output",
    names.ACTIVATION_STD: "standard deviation of the output",
    names.LOW_FREQUENCIES: "power at low frequencies",
    names.SPECTRAL_TO_LOCAL: "spectral branch / convolution",
    names.DEAD_UNITS: "dead units after the GELU",
}
SHARES = (names.LOW_FREQUENCIES, names.DEAD_UNITS)
MOMENTS = (("--", "white"), ("-", None))  # line style and marker face; None is the arm's colour

Seeds = Sequence[Mapping[str, Mapping[str, float]]]  # for each seed, values by block and quantity


def activation_figure(arms: Mapping[str, Mapping[str, Seeds]]) -> Figure:
    """Draw each quantity of the blocks against depth, one panel per quantity.

    A mean that grows from block to block is the drift that y = x + GELU(...) is suspected to cause; a flat line at 0
    is no drift. On a log axis a straight rise of the standard deviation is exponential growth with depth; the axis of
    the mean is linear around 0 and logarithmic for large means. Lines are medians over seeds, bands the range. Dashed
    lines with open marks are the first moment, solid lines the second. Quantities without values get no panel.

    Args:
        arms: for each arm and moment ("initialisation", "after training"), the quantities of every block of each
            seed, in execution order.
    """
    quantities = [quantity for quantity in PANELS if _curves_of(arms, quantity)] or list(PANELS)[:2]
    with matplotlib.rc_context(NAMED):
        rows = -(-len(quantities) // 3)
        figure = Figure(figsize=(9, 0.6 + 2.6 * rows), layout="constrained")
        axes = list(figure.subplots(rows, min(len(quantities), 3), squeeze=False).flat)
        for ax, quantity in zip(axes, quantities, strict=False):
            for place, (arm, style) in enumerate(arm_styles(arms).items()):
                size = max(3.0, 6.5 - place)  # later markers are smaller, so that coinciding arms all show
                for (line, face), seeds in zip(MOMENTS, arms[arm].values(), strict=False):
                    _draw(ax, _table(seeds, quantity), style, line, face or style.colour, size)
            _scale(ax, quantity, _curves_of(arms, quantity))
        for ax in axes[len(quantities) :]:
            ax.remove()
        legend_below(figure, _handles(arms), columns=4)
    return figure


def _table(seeds: Seeds, quantity: str) -> NDArray[np.float64]:
    """Values of a quantity, shape (seeds, blocks); NaN where missing."""
    most = max((len(states) for states in seeds), default=0)
    table = np.full((len(seeds), most), np.nan)
    for row, states in zip(table, seeds, strict=True):
        row[: len(states)] = [state.get(quantity, np.nan) for state in states.values()]
    return table


def _curves_of(arms: Mapping[str, Mapping[str, Seeds]], quantity: str) -> list[float]:
    tables = [_table(seeds, quantity) for of_arm in arms.values() for seeds in of_arm.values()]
    return [float(value) for table in tables for value in table[np.isfinite(table)]]


def _draw(ax: Axes, table: NDArray[np.float64], style: ArmStyle, line: Any, face: str, size: float) -> None:
    known = np.isfinite(table).any(axis=0)
    if not known.any():
        return
    depth, values = np.flatnonzero(known) + 1, table[:, known]
    low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    if (high > low).any():
        ax.fill_between(depth, low, high, color=style.colour, alpha=0.13, linewidth=0)
    ax.plot(
        depth,
        np.nanmedian(values, axis=0),
        linestyle=line,
        linewidth=1.2,
        marker=style.marker,
        markersize=size,
        markeredgewidth=0.9,
        color=style.colour,
        markerfacecolor=face,
    )


def _scale(ax: Axes, quantity: str, values: Sequence[float]) -> None:
    ax.set(xlabel="block", ylabel=PANELS[quantity])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    positive = [value for value in values if value > 0]
    if quantity == names.ACTIVATION_MEAN:
        ax.axhline(0, color=INK, linewidth=0.6)
        sizes = np.abs([value for value in values if value])
        if sizes.size and sizes.max() > LOG_FROM**2 * np.median(sizes):
            linear = float(10 ** np.ceil(np.log10(np.median(sizes))))
            decades = float(np.log10(sizes.max() / linear))
            ax.set_yscale("symlog", linthresh=linear, linscale=max(0.6, decades / 5))  # room for three labels
            ticks = SymmetricalLogLocator(base=10, linthresh=linear)
            ticks.set_params(numticks=7)
            ax.yaxis.set_major_locator(ticks)
            plain_powers(ax.yaxis)
    elif quantity in SHARES:
        ax.set_ylim(-0.04, 1.04)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    elif positive and max(positive) > LOG_FROM * min(positive):
        ax.set_yscale("log")
        plain_powers(ax.yaxis)


def _handles(arms: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    handles = [
        Line2D([], [], color=style.colour, marker=style.marker, markersize=5, linestyle="", label=arm)
        for arm, style in arm_styles(arms).items()
    ]
    moments = list(dict.fromkeys(moment for of_arm in arms.values() for moment in of_arm))
    for (line, face), moment in zip(MOMENTS, moments, strict=False):
        look: Any = {"linestyle": line, "marker": "o", "markersize": 5, "markerfacecolor": face or INK, "color": INK}
        handles.append(Line2D([], [], label=moment, **look))
    return handles
