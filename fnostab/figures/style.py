"""What all figures share. Colours are Okabe and Ito's, told apart by colour-blind readers and in grey."""

from itertools import cycle, islice
from typing import Any

from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, NullFormatter

__all__ = ["COLOURS", "INK", "LINES", "STYLE", "cycled", "plain_powers"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = ("-", (0, (5, 1.5)), (0, (2, 1)), (0, (6, 1.5, 1, 1.5)))  # so that curves that coincide both show
INK = "#1c2024"  # of text, axes and marks; a page with a dark ground puts its own in its place
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
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def cycled(values: tuple[Any, ...], n: int) -> list[Any]:
    """The first ``n`` of ``values``, from the start again where they end."""
    return list(islice(cycle(values), n))


def plain_powers(axis: Axis) -> None:
    """Label powers of ten on a log axis with plain text: 0.01, 1, 100, 10⁴."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
    low, high = axis.get_view_interval()
    if high > 10 * low:
        axis.set_minor_formatter(NullFormatter())
    else:  # no two powers of ten in view: the minor ticks are the scale
        axis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))


def _power(value: float) -> str:
    if 1e-3 < value < 1e4:
        return f"{value:g}"
    exponent = f"{value:e}".partition("e")[2]
    return f"10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
