"""Figures in one common style, for trial artifacts, reports and the docs; one function per figure.

`fnostab.figures.arms` compares arms, `fnostab.figures.curves` draws the validation losses of many seeds, and
`fnostab.figures.fan` their gradient norms. No figure hides a spike, and a red cross marks a value that was not finite.
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
