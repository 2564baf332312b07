"""Figure of a trial's reconstruction beside the truth."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fnostab.figures.style import STYLE

ERRORS = "cividis"  # monotonic in lightness, so that the sign of an error shows in greyscale too
WIDTH, ROW_HEIGHT, IMAGE = 7.2, 2.2, 1.67  # inches


def reconstruction_figure(
    predicted: NDArray[np.complex64],
    truth: NDArray[np.complex64],
    phase: bool,
    named: tuple[str, str] = ("predicted", "true"),
) -> Figure:
    """Draw a reconstruction, the truth and the error.

    The first row is the amplitude, the second, with ``phase``, the phase. The columns are the prediction, the truth
    and the error: |predicted| - |true|, or the phase difference wrapped into (-pi, pi] in radians. Prediction and
    truth share the truth's colour scale; a pointed end of the colour bar indicates values beyond it. In error maps
    grey is no error, yellow too large, dark blue too small. A collapsed prediction is a single colour, and its error
    map the negative of the truth.

    Args:
        predicted: reconstruction aligned to the truth, shape (h, w).
        truth: true object, same shape.
        phase: whether to draw the phase.
        named: titles of prediction and truth.
    """
    rows = [("amplitude", "", np.abs(predicted), np.abs(truth))]
    if phase:
        rows.append(("phase", " / rad", np.angle(predicted), np.angle(truth)))
    with matplotlib.rc_context({**STYLE, "axes.grid": False, "axes.spines.left": False, "axes.spines.bottom": False}):
        figure = Figure(figsize=(WIDTH, ROW_HEIGHT * len(rows)))
        for line, (name, unit, ours, theirs) in enumerate(rows):
            places = [(line, column) for column in range(3)]
            error = np.angle(np.exp(1j * (ours - theirs))) if name == "phase" else ours - theirs
            limit = float(np.abs(error).max()) or 1.0
            same = (theirs.min(), theirs.max())
            _image(figure, places[0], ours, f"{named[0]} {name}{unit}", "viridis", same)
            _image(figure, places[1], theirs, f"{named[1]} {name}{unit}", "viridis", same)
            ax = _image(figure, places[2], error, f"{name} error{unit}", ERRORS, (-limit, limit))
            ax.set_xlabel(f"mean absolute error {np.abs(error).mean():.2g}", fontsize=8)
    return figure


def _image(
    figure: Figure, place: tuple[int, int], image: NDArray[Any], title: str, colours: str, limits: tuple[float, float]
) -> Axes:
    """Draw an image with a colour bar at a (row, column) of the figure.

    Axes are placed explicitly, since matplotlib's layout engines would take most of the drawing time.
    """
    line, column = place
    width, height = figure.get_size_inches()
    left, bottom = 0.1 + column * (WIDTH - 0.1) / 3, height - (line + 1) * ROW_HEIGHT + 0.27

    def axes(x: float, y: float, w: float, h: float) -> Axes:
        return figure.add_axes(((left + x) / width, (bottom + y) / height, w / width, h / height))

    ax = axes(0, 0, IMAGE, IMAGE)
    shown = ax.imshow(image, cmap=colours, vmin=limits[0], vmax=limits[1])
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=9)
    rounding = 1e-6 * (limits[1] - limits[0])
    below, above = image.min() < limits[0] - rounding, image.max() > limits[1] + rounding
    tips = "both" if below and above else "min" if below else "max" if above else "neither"
    bar = figure.colorbar(shown, cax=axes(IMAGE + 0.06, 0.05 * IMAGE, 0.09, 0.9 * IMAGE), extend=tips)
    bar.ax.tick_params(labelsize=7.5)
    bar.ax.yaxis.get_offset_text().set_horizontalalignment("left")  # else it overlaps the image's title
    bar.locator = MaxNLocator(5)
    return ax
