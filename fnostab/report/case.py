"""A verdict with all that it was made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

from rich.console import Console

from fnostab.decision import Stage, Stress, Verdict
from fnostab.report.verdict import print_case
from fnostab.show.visible import visible

__all__ = ["Case"]

TEXT_WIDTH = 100  # columns, where there is no terminal


@dataclass(frozen=True, repr=False)
class Case:
    """A verdict with all that it was made from; a terminal shows it as text, a notebook as a report's first box.

    Attributes:
        studies: by stage, anything with the attributes of a `StudySpec`; empty for a table that does not say.
        judged: a line for each stage: which study, when, how many trials, what else is there.
        command: of the next step, to be pasted; empty if there is none.
        special: what a task's own study says in place of answers, with `render` and `to_json`; None of any other.
    """

    verdict: Verdict
    stages: Sequence[Stage]
    studies: Mapping[str, Any] = field(default_factory=dict)
    judged: Sequence[str] = ()
    command: str = ""
    stress: Stress | None = None
    special: Any = None

    def __repr__(self) -> str:
        text = StringIO()
        console = Console(file=text, width=TEXT_WIDTH, force_jupyter=False, color_system=None)
        print_case(self, console)
        return visible(text.getvalue().rstrip())

    def _repr_html_(self) -> str:
        from fnostab.report.documents import to_box  # which draws: it takes long to import

        return to_box(self)
