"""Figures, one function each, one style for all: used by a trial's artifacts, reports and docs alike.

Arms side by side are drawn in `fnostab.figures.arms`; validation losses of many seeds in `fnostab.figures.curves`,
their gradient norms in `fnostab.figures.fan`.
In all of them spikes stay in view, and a red cross is a value that was not finite.
"""

from fnostab.figures.arms import failure_rate_forest, kaplan_meier_figure, loss_strip
from fnostab.figures.curves import LossCurve, loss_curves
from fnostab.figures.fan import Fan, grad_norm_fan, make_fan
from fnostab.figures.style import COLOURS, INK

__all__ = [
    "COLOURS",
    "INK",
    "Fan",
    "LossCurve",
    "failure_rate_forest",
    "grad_norm_fan",
    "kaplan_meier_figure",
    "loss_curves",
    "loss_strip",
    "make_fan",
]
