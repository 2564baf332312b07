"""Figures, one function each, one style for all: used by a trial's artifacts, reports and docs alike.

What one trial keeps is drawn in `fnostab.figures.trial`; what every block does in
`fnostab.figures.activations`; arms side by side in `fnostab.figures.arms`; validation losses of many seeds
in `fnostab.figures.curves`, their gradient norms in `fnostab.figures.fan`.
In all of them spikes stay in view, and a red cross is a value that was not finite.
"""

from fnostab.figures.activations import activation_figure
from fnostab.figures.arms import failure_rate_forest, kaplan_meier_figure, loss_strip
from fnostab.figures.curves import LossCurve, loss_curves
from fnostab.figures.fan import Fan, grad_norm_fan, make_fan
from fnostab.figures.replay import ReplayedSteps, replay_figure
from fnostab.figures.style import COLOURS, INK
from fnostab.figures.trial import Panel, history_figure, reconstruction_figure

__all__ = [
    "COLOURS",
    "INK",
    "Fan",
    "LossCurve",
    "Panel",
    "ReplayedSteps",
    "activation_figure",
    "failure_rate_forest",
    "grad_norm_fan",
    "history_figure",
    "kaplan_meier_figure",
    "loss_curves",
    "loss_strip",
    "make_fan",
    "reconstruction_figure",
    "replay_figure",
]
