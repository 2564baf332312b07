"""Draw a curve of gradient norms in a few characters of text, without losing a spike.

A cell shows the largest norm of its steps on a logarithmic scale: the mean of a thousand steps would hide a
single spike.
"""

import math
from itertools import pairwise

CELLS = 256  # kept for a curve of any length; at least half are in use once it is longer
BARS = "▁▂▃▄▅▆▇█"
NONFINITE = "\N{MULTIPLICATION SIGN}"
LEAST_DECADES = 1.0  # between the lowest and highest bars, so that noise does not look like spikes
NOTHING = -math.inf  # value of a cell without a recorded step


class NormCurve:
    """Largest gradient norm of each stretch of steps; stretches double in length as the curve grows."""

    def __init__(self) -> None:
        self._width = 1  # steps per cell
        self._cells: list[float] = []

    def __bool__(self) -> bool:
        return bool(self._cells)

    def add(self, norm: float, step: int, since: int | None = None) -> None:
        """Add the norm of ``step``, or the largest norm from ``since`` to ``step``; NaN counts as infinite."""
        norm = norm if math.isfinite(norm) else math.inf
        while step // self._width >= CELLS:
            self._cells = [max(self._cells[i : i + 2]) for i in range(0, len(self._cells), 2)]
            self._width *= 2
        first, last = (step if since is None else min(since, step)) // self._width, step // self._width
        self._cells += [NOTHING] * (last + 1 - len(self._cells))
        for cell in range(first, last + 1):
            self._cells[cell] = max(self._cells[cell], norm)

    def columns(self, n: int) -> list[float]:
        """Largest norm of each of at most ``n`` equal stretches; inf if not finite, -inf if there is none."""
        n = min(n, len(self._cells))
        edges = [i * len(self._cells) // n for i in range(n + 1)] if n else []
        return [max(self._cells[a:b]) for a, b in pairwise(edges)]


def sparkline(curve: NormCurve, width: int) -> str:
    """Draw ``curve`` in at most ``width`` characters: bars on a log scale, ``NONFINITE`` for non-finite norms."""
    columns = curve.columns(width)
    positive = [math.log10(norm) for norm in columns if 0 < norm < math.inf]
    low, high = (min(positive), max(positive)) if positive else (0.0, 0.0)
    per_decade = (len(BARS) - 1) / max(high - low, LEAST_DECADES)

    def character(norm: float) -> str:
        if norm == math.inf:
            return NONFINITE
        if norm == NOTHING:
            return " "
        return BARS[round((math.log10(norm) - low) * per_decade)] if norm > 0 else BARS[0]

    return "".join(map(character, columns))
