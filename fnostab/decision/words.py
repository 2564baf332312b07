"""Format numbers and lists for sentences."""

from collections.abc import Sequence

from fnostab.stats.interval import Interval
from fnostab.stats.rate import Rate


def p_text(p: float, level: float = 0.05) -> str:
    """Format a p-value: p = 0.004. Rounding never moves it across the level: 0.0502 is not 0.050."""
    if p < 0.001 and not level < p:
        return "p < 0.001"
    digits = 3 if p < 0.1 else 2
    while (round(p, digits) <= level) != (p <= level):
        digits += 1
    return f"p = {p:.{digits}f}"


def percent(share: float) -> str:
    """Format a share as a percentage: 12 %."""
    return f"{100 * share:.0f} %"


def failures(rate: Rate) -> str:
    """Format failures of trials: 1 of 10."""
    return f"{rate.failed} of {rate.n}"


def points(reduction: float, interval: Interval | None) -> str:
    """Format a reduction of the failure rate in percentage points: fails 33 points less often (95 %: 17 to 51 less)."""
    size, way, other = abs(100 * reduction), "less", "more"
    if reduction < 0:
        way, other = other, way
    said = f"fails {size:.0f} points {way} often"
    if interval is None:
        return said
    low, high = (100 * end * (-1 if reduction < 0 else 1) for end in interval)
    low, high = min(low, high), max(low, high)
    if low >= 0:
        return f"{said} (95 %: {low:.0f} to {high:.0f} {way})"
    return f"{said} (95 %: {high:.0f} {way} to {-low:.0f} {other})"


def and_list(names: Sequence[str]) -> str:
    """Join names: a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"
