"""Validation losses of all seeds during training, one panel per arm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fnostab.figures.decimation import decimate
from fnostab.figures.style import FAILED, INK, NAMED, ArmStyle, arm_styles, legend_below, mark_nonfinite, plain_powers
from fnostab.record.plurals import counted

PANELS_IN_A_ROW = (3, 2, 4)  # the first that leaves no panel alone in the last row
RASTER_FROM = 4000  # number of points in a panel above which they are rasterised in vector formats
FAILED_LINE: Any = (0, (3, 1.2))
LEVEL_LINES: Any = ("-.", (0, (6, 3)))


@dataclass(frozen=True, eq=False)
class LossCurve:
    """Validation losses of one trial.

    Attributes:
        epochs: epochs completed at each validation, increasing, shape (n,).
        values: finite losses at these epochs, shape (n,).
        failed: whether the trial failed.
        nonfinite_epochs: epochs at which the loss or gradient was not finite, shape (m,).
    """

    seed: int
    epochs: NDArray[np.float64]
    values: NDArray[np.float64]
    failed: bool = False
    nonfinite_epochs: Sequence[float] = ()


def loss_curves(
    arms: Mapping[str, Sequence[LossCurve]],
    *,
    metric: str,
    x: str = "epoch",
    median: bool = True,
    judged: bool = True,
    levels: Mapping[str, float] = MappingProxyType({}),
) -> Figure:
    """Draw the validation loss of every seed over the epochs, one panel per arm.

    A thin line is a seed; if the trial failed it is dashed and ends in an open triangle. The thick line is the median
    over seeds. A seed whose curve has ended counts as worse than all others, so that trials which fail early do not
    lower the median; once half of the seeds have ended, the median ends too. The dotted line in the other panels is
    the median of the first arm, the control. Red crosses on the top edge mark epochs with a non-finite value. All
    panels share both axes; the loss axis is logarithmic if all losses are above 0.

    Args:
        arms: curves of each arm, control first.
        metric: name of the loss, the axis label.
        x: unit of ``epochs`` of the curves, the axis label.
        median: draw medians; requires that all seeds have values at the same epochs.
        judged: whether failures were judged.
        levels: losses to compare with, by name; at most two.
    """
    columns = next((n for n in PANELS_IN_A_ROW if len(arms) % n != 1), PANELS_IN_A_ROW[0])
    columns = max(1, min(columns, len(arms)))
    rows = max(1, -(-len(arms) // columns))
    with matplotlib.rc_context(NAMED):
        figure = Figure(figsize=(max(3.6, 2.75 * columns), 0.7 + 2.3 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        panels = list(axes.flat)
        reference = median_curve(next(iter(arms.values()), ())) if median else None
        for place, (ax, (arm, style)) in enumerate(zip(panels, arm_styles(arms).items(), strict=False)):
            _panel(ax, arms[arm], style, reference if place else None)
            if median:
                ax.plot(*median_curve(arms[arm]), color=INK, linewidth=2, zorder=2.5)
            for line, loss in zip(LEVEL_LINES, levels.values(), strict=False):
                ax.axhline(loss, color=INK, alpha=0.55, linewidth=1, linestyle=line, zorder=1)
            ax.set_title(f"{arm}: {_counted(arms[arm], judged)}", fontsize=9, pad=9)
        for ax in panels[len(arms) :]:
            ax.set_visible(False)
        panels[0].xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if all((curve.values > 0).all() for of_arm in arms.values() for curve in of_arm):
            panels[0].set_yscale("log")
            plain_powers(panels[0].yaxis)
        for place, ax in enumerate(panels[: len(arms)]):
            below = place + columns >= len(arms)
            ax.tick_params(labelbottom=below)
            ax.set(xlabel=x if below else "", ylabel="" if place % columns else metric)
        legend_below(figure, _handles(arms, panels, median, levels), columns=2 * columns - 1 if columns > 1 else 2)
    return figure


def median_curve(curves: Sequence[LossCurve]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Median loss over seeds at each whole epoch with a loss of any seed.

    A seed without a loss at an epoch counts as worse than all others.

    Returns:
        Epochs and medians, both of shape (n,); a median is NaN where it is not finite.
    """
    epochs = np.unique(np.concatenate([c.epochs for c in curves])) if curves else np.array([])
    epochs = epochs[epochs == np.round(epochs)]  # a training that ends early validates within an epoch
    losses = np.full((len(curves), epochs.size), np.inf)
    for row, curve in zip(losses, curves, strict=True):
        _, here, there = np.intersect1d(epochs, curve.epochs, return_indices=True)
        row[here] = curve.values[there]
    medians = np.median(losses, axis=0) if losses.size else np.array([])
    return epochs[: medians.size], np.where(np.isfinite(medians), medians, np.nan)


def _counted(curves: Sequence[LossCurve], judged: bool) -> str:
    if not curves:
        return "no loss"
    return f"{sum(c.failed for c in curves)} of {len(curves)} failed" if judged else counted(len(curves), "run")


def _panel(ax: Axes, curves: Sequence[LossCurve], style: ArmStyle, reference: Any) -> None:
    raster = sum(c.epochs.size for c in curves) > RASTER_FROM
    thin: Any = {"color": style.colour, "linewidth": 0.8, "rasterized": raster, "zorder": 1.8}
    for curve in curves:
        epochs, values = decimate(curve.epochs, curve.values)
        line = FAILED_LINE if curve.failed else "-"
        ax.plot(epochs, values, linestyle=line, alpha=0.9 if len(curves) < 30 else 0.4, **thin)
    ended = [(c.epochs[-1], c.values[-1]) for c in curves if c.failed and c.epochs.size]
    if ended:
        ax.plot(*zip(*ended, strict=True), linestyle="", color=style.colour, zorder=4, **FAILED)
    if reference is not None:
        ax.plot(*reference, color=INK, linewidth=1.4, linestyle=":", zorder=3)
    mark_nonfinite(ax, [epoch for curve in curves for epoch in curve.nonfinite_epochs])


def _handles(
    arms: Mapping[str, Sequence[LossCurve]], panels: Sequence[Axes], median: bool, levels: Mapping[str, float]
) -> list[Any]:
    curves = [curve for of_arm in arms.values() for curve in of_arm]
    handles = [Line2D([], [], color=INK, linewidth=0.8, label="a seed")]
    if any(curve.failed for curve in curves):
        failed: Any = {"linewidth": 0.8, "linestyle": FAILED_LINE, **FAILED}
        handles.append(Line2D([], [], color=INK, label="a seed that failed", **failed))
    if median:
        handles.append(Line2D([], [], color=INK, linewidth=2, label="median"))
    if median and len(arms) > 1:
        handles.append(Line2D([], [], color=INK, linewidth=1.4, linestyle=":", label=f"median of {next(iter(arms))}"))
    handles += [
        Line2D([], [], color=INK, alpha=0.55, linewidth=1, linestyle=line, label=what)
        for line, what in zip(LEVEL_LINES, levels, strict=False)
    ]
    marks = [h for ax in panels for h in ax.get_legend_handles_labels()[0]]
    return handles + marks[:1]
