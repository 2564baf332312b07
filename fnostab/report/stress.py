"""Print a stress study in a terminal. It draws nothing, so that it need not import what draws."""

from collections import Counter

from rich.console import Group, RenderableType
from rich.text import Text

from fnostab.decision.stress import Stress, margin_text
from fnostab.record.outcomes import EXCLUDED, Outcome
from fnostab.report.tables import plain_table

__all__ = ["render_stress"]


def render_stress(stress: Stress) -> RenderableType:
    """A table of failures by value of the knob, each arm's margin, and what they say."""
    values = list(dict.fromkeys(point.value for arm in stress.arms for point in arm.points))
    columns = ("arm", *(f"{value:g}" for value in values), "p")
    table = plain_table(f"Failures by {stress.knob}", columns, "half of the trials fail at")
    for arm in stress.arms:
        counts = {point.value: f"{point.failed}/{point.n}" for point in arm.points}
        p = "" if arm.p is None else f"{arm.p:.2g}"
        table.add_row(arm.name, *(counts.get(value, "-") for value in values), p, margin_text(arm))
    outcomes = sum((Counter(point.outcomes) for arm in stress.arms for point in arm.points), Counter[str]())
    left_out = ", ".join(f"{n} {each}" for each, n in outcomes.items() if each in (*EXCLUDED, Outcome.RUNNING))
    parts: list[RenderableType] = [table, Text()]
    if left_out:
        parts += [Text(f"no training outcome: {left_out}"), Text()]
    return Group(*parts, Text(stress.finding, "bold"))
