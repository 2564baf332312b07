"""Shared style of all figures: colours, dashes, markers.

Colours are Okabe and Ito's, told apart by colour-blind readers. Print without colour needs more, so
every arm also has a dash and a marker of its own, and what is not finite a shape that nothing else has.
"""

from collections.abc import Iterable, Sequence
from itertools import cycle, islice
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import NDArray

from fnostab.figures.decimation import decimate

__all__ = [
    "ALERT",
    "COLOURS",
    "FAILED",
    "INK",
    "LOG_FROM",
    "NAMED",
    "NONFINITE",
    "STYLE",
    "ArmStyle",
    "arm_styles",
    "cycled",
    "legend_below",
    "mark_nonfinite",
    "plain_powers",
]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = ("-", (0, (5, 1.5)), (0, (2, 1)), (0, (6, 1.5, 1, 1.5)))  # so that curves that coincide both show
MARKERS = ("o", "s", "D", "^", "v", "P", "h")
INK = "#1c2024"  # of text, axes and marks; a page with a dark ground puts its own in its place
ALERT = "#d00000"  # of what is not finite, and of nothing else
FAILED: Any = {"marker": "v", "markersize": 6, "markerfacecolor": "none", "markeredgewidth": 1.2}  # a trial
NONFINITE = "not finite"  # as legends call it
CROSSES = 150  # side by side, in one figure
LOG_FROM = 5.0  # ratio of the values above which their axis is logarithmic
STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "font.size": 9,
    "figure.dpi": 120,
}
NAMED: Any = {**STYLE, "text.parse_math": False}  # where names of arms are shown: they are names, no formulas
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class ArmStyle(NamedTuple):
    """Style of an arm in every figure."""

    colour: str
    line: Any  # a matplotlib line style
    marker: str


def cycled(values: tuple[Any, ...], n: int) -> list[Any]:
    """The first ``n`` of ``values``, from the start again where they end."""
    return list(islice(cycle(values), n))


def arm_styles(arms: Iterable[str]) -> dict[str, ArmStyle]:
    """The style of each arm, by its place in the study."""
    names = list(arms)
    looks = zip(*(cycled(each, len(names)) for each in (COLOURS, LINES, MARKERS)), strict=True)
    return {arm: ArmStyle(*look) for arm, look in zip(names, looks, strict=True)}


def mark_nonfinite(ax: Axes, places: Sequence[float] | NDArray[Any]) -> None:
    """A red cross on the top edge at each of ``places``, which are in units of the horizontal axis.

    Of very many, the first in each column that a cross is wide.
    """
    sorted_places = np.unique(np.asarray(places, dtype=np.float64))
    places, _ = decimate(sorted_places, np.full(sorted_places.size, np.nan), CROSSES)
    if places.size:
        ax.plot(
            places,
            np.ones(places.size),
            "x",
            color=ALERT,
            markersize=6.5,
            markeredgewidth=1.8,
            transform=ax.get_xaxis_transform(),
            clip_on=False,
            zorder=5,
            label=NONFINITE,
        )


def legend_below(figure: Figure, handles: Sequence[Any], columns: int = 4, handle_length: float = 2.6) -> None:
    """One legend for the whole figure, below it, where it covers no data; none without handles."""
    if handles:
        by_label = {handle.get_label(): handle for handle in handles}  # panels name the same things
        figure.legend(
            by_label.values(),
            by_label.keys(),
            loc="outside lower center",
            ncols=min(columns, len(by_label)),
            fontsize=8,
            handlelength=handle_length,
            columnspacing=1.2,
        )


def plain_powers(axis: Axis) -> None:
    """Label powers of ten on a log axis with plain text: 0.01, 1, 100, 10⁴; where they are few, what is between."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
    low, high = axis.get_view_interval()
    if high > 1000 * low:
        axis.set_minor_formatter(NullFormatter())
    else:
        digits = (2, 5) if high > 6 * low else range(2, 10)
        axis.set_minor_formatter(FuncFormatter(lambda value, _: _power(value) if _digit(value) in digits else ""))


def _digit(value: float) -> int:
    """The first one, of a number with one."""
    return int(f"{value:.0e}"[0])


def _power(value: float) -> str:
    if value <= 0:
        return f"\N{MINUS SIGN}{_power(-value)}" if value else "0"
    if 9e-4 < value < 1e4:
        return f"{value:g}"
    exponent = f"{value:e}".partition("e")[2]
    return f"10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
