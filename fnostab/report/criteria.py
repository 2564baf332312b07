"""Criteria with their tests, as tables and text."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.table import Table
from rich.text import Text

from fnostab.decision import Criterion, State

__all__ = ["criteria_table", "evidence_text", "percent", "plain_table", "test_text"]

COLOURS = {State.MET: "green", State.NOT_MET: "red", State.UNTESTABLE: "yellow"}


def criteria_table(stage: str, criteria: Iterable[Criterion]) -> Table:
    """The criteria of a stage."""
    title = f"Stage {stage.upper()}: criteria, arm against control"
    table = plain_table(title, ("arm", "criterion", "state"), "evidence")
    for arm, names, state, evidence in _alike(c for c in criteria if c.stage == stage):
        table.add_row(arm, "\n".join(names), Text(state, style=COLOURS[state]), evidence)
    return table


def evidence_text(criterion: Criterion) -> str:
    """Observed numbers, effect and test of a criterion."""
    test = test_text(criterion)
    return f"{criterion.detail}; {test}" if test else criterion.detail


def test_text(c: Criterion) -> str:
    """Effect, interval, test, p and what they say, in words; empty where no test was made."""
    if c.supported is None or c.state is State.UNTESTABLE or c.test is None or c.p is None:
        return ""
    luck = "" if c.state is not State.MET else ", significant" if c.supported else ", could be luck"
    effect = ""
    if c.effect is not None:
        what = "reduction" if c.name == "fewer_failures" else "ratio" if c.is_ratio else "difference"
        interval = f" [{c.ci[0]:.3g}, {c.ci[1]:.3g}]" if c.ci else ""
        effect = f"{what} {c.effect:.3g}{interval}, "
    return f"{effect}{c.test}, p = {c.p:.3g} (one-sided){luck}"


def percent(interval: tuple[float, float] | None) -> str:
    """An interval of rates, as in ``5%-51%``."""
    return "-" if interval is None else f"{interval[0]:.0%}-{interval[1]:.0%}"


def plain_table(title: str, columns: Sequence[str], wrapped: str | None = None) -> Table:
    """A table without lines, whose last column ``wrapped`` takes what room is left."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True)
    if wrapped:
        table.add_column(wrapped)
    return table


def _alike(criteria: Iterable[Criterion]) -> Iterable[tuple[str, list[str], State, str]]:
    """Neighbouring criteria of an arm with the same state for the same reason, as one line."""
    for (arm, state, evidence), group in groupby(criteria, lambda c: (c.arm, c.state, evidence_text(c))):
        yield arm, [c.name if c.decides else f"({c.name})" for c in group], state, evidence
