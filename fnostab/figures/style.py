"""Shared style of all figures: colours, line styles, markers.

The colours are those of Okabe and Ito, which colour-blind readers can tell apart. For print without colour every arm
also has its own line style and marker, and non-finite values have a marker that nothing else uses.
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

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = ("-", (0, (5, 1.5)), (0, (2, 1)), (0, (6, 1.5, 1, 1.5)))  # coinciding curves all show
MARKERS = ("o", "s", "D", "^", "v", "P", "h")
INK = "#1c2024"  # text, axes and marks; replaced on pages with a dark background
ALERT = "#d00000"  # only for values that are not finite
FAILED: Any = {"marker": "v", "markersize": 6, "markerfacecolor": "none", "markeredgewidth": 1.2}  # failed trials
NONFINITE = "not finite"  # legend label
CROSSES = 150  # maximum number side by side in a figure
LOG_FROM = 5.0  # ratio of largest to smallest value above which an axis is logarithmic
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
NAMED: Any = {**STYLE, "text.parse_math": False}  # for figures with arm names, which are not formulas
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class ArmStyle(NamedTuple):
    """Style of an arm in every figure."""

    colour: str
    line: Any  # a matplotlib line style
    marker: str


def cycled(values: tuple[Any, ...], n: int) -> list[Any]:
    """First ``n`` of ``values``, repeated cyclically."""
    return list(islice(cycle(values), n))


def arm_styles(arms: Iterable[str]) -> dict[str, ArmStyle]:
    """Style of each arm, by its position in the study."""
    names = list(arms)
    looks = zip(*(cycled(each, len(names)) for each in (COLOURS, LINES, MARKERS)), strict=True)
    return {arm: ArmStyle(*look) for arm, look in zip(names, looks, strict=True)}


def mark_nonfinite(ax: Axes, places: Sequence[float] | NDArray[Any]) -> None:
    """Draw a red cross on the top edge at each of ``places``, in units of the horizontal axis.

    Where crosses would overlap only the first is drawn.
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
    """Add one legend for the whole figure below it, where it covers no data; without handles do nothing."""
    if handles:
        by_label = {handle.get_label(): handle for handle in handles}  # panels repeat labels
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
    """Label the powers of ten of a log axis as plain text: 0.01, 1, 100, 10⁴; minor ticks too if these are few."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
    low, high = axis.get_view_interval()
    if high > 1000 * low:
        axis.set_minor_formatter(NullFormatter())
    else:
        digits = (2, 5) if high > 6 * low else range(2, 10)
        axis.set_minor_formatter(FuncFormatter(lambda value, _: _power(value) if _digit(value) in digits else ""))


def _digit(value: float) -> int:
    """First significant digit."""
    return int(f"{value:.0e}"[0])


def _power(value: float) -> str:
    if value <= 0:
        return f"\N{MINUS SIGN}{_power(-value)}" if value else "0"
    if 9e-4 < value < 1e4:
        return f"{value:g}"
    digit, _, exponent = f"{value:.0e}".partition("e")
    times = "" if digit == "1" else f"{digit}\N{MULTIPLICATION SIGN}"
    return f"{times}10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
