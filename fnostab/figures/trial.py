"""What one trial keeps: its reconstruction beside the truth, its history, and its activations."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fnostab.figures.style import COLOURS, INK, STYLE

__all__ = ["activation_figure", "history_figure", "reconstruction_figure"]


def reconstruction_figure(predicted: NDArray[np.complex64], truth: NDArray[np.complex64], phase: bool) -> Figure:
    """Predicted and true amplitude, and phase if asked, with their errors; both aligned, shape (h, w)."""
    rows = [("amplitude", np.abs(predicted), np.abs(truth))]
    if phase:
        rows.append(("phase / rad", np.angle(predicted), np.angle(truth)))
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(9, 2.9 * len(rows)), layout="constrained")
        axes = figure.subplots(len(rows), 3, squeeze=False)
        for line, (name, ours, theirs) in zip(axes, rows, strict=True):
            error = np.angle(np.exp(1j * (ours - theirs))) if "phase" in name else ours - theirs
            limit = np.abs(error).max() or 1.0
            same: dict[str, Any] = {"cmap": "viridis", "vmin": theirs.min(), "vmax": theirs.max()}
            signed: dict[str, Any] = {"cmap": "RdBu", "vmin": -limit, "vmax": limit}
            panels = [("predicted", ours, same), ("true", theirs, same), ("error of", error, signed)]
            for ax, (title, image, style) in zip(line, panels, strict=True):
                shown = ax.imshow(image, **style)
                ax.set(title=f"{title} {name}", xticks=[], yticks=[])
                figure.colorbar(shown, ax=ax, shrink=0.8)
    return figure


def history_figure(
    steps: Sequence[int],
    values: Mapping[str, Sequence[float]],
    *,
    ylabel: str,
    nonfinite_steps: Sequence[int] = (),
    failure_step: int | None = None,
) -> Figure:
    """Curves over optimiser steps on a log axis, every step drawn, so that no spike is lost.

    Args:
        steps: of every value, shape (n,).
        values: curve by its name; values that are not finite leave a gap.
        ylabel: of the axis.
        nonfinite_steps: marked at the foot.
        failure_step: marked by a vertical line.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 3), layout="constrained")
        ax = figure.subplots()
        for colour, (name, curve) in zip(COLOURS, values.items(), strict=False):
            ax.plot(steps, curve, color=colour, linewidth=0.9, label=name)
        if nonfinite_steps:
            height = [0.02] * len(nonfinite_steps)
            ax.plot(nonfinite_steps, height, "x", color=INK, transform=ax.get_xaxis_transform(), label="not finite")
        if failure_step is not None:
            ax.axvline(failure_step, color=INK, linestyle="--", linewidth=0.9, label="failure")
        ax.set(xlabel="optimiser step", ylabel=ylabel, yscale="log")
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize=8)
    return figure


def activation_figure(arms: Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]]) -> Figure:
    """Mean and standard deviation of every block's output against its depth.

    Args:
        arms: for each arm, for each moment ("initialisation", "after training"), (mean, standard
            deviation) of every block's output, in the order of depth.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        means, stds = figure.subplots(1, 2)
        for colour, (arm, moments) in zip(COLOURS, arms.items(), strict=False):
            for line, (moment, blocks) in zip(("--", "-"), moments.items(), strict=False):
                depth = range(1, len(blocks) + 1)
                style = {"linestyle": line, "marker": "o", "markersize": 3, "color": colour}
                means.plot(depth, [mean for mean, _ in blocks.values()], label=f"{arm}, {moment}", **style)
                stds.plot(depth, [std for _, std in blocks.values()], **style)
        means.set(xlabel="block", ylabel="mean of the output")
        means.axhline(0, color=INK, linewidth=0.6)
        stds.set(xlabel="block", ylabel="standard deviation of the output", yscale="log")
        for ax in (means, stds):
            ax.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    return figure
