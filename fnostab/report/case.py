"""Case: a verdict with the evidence behind it."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

from fnostab.decision import Stage, Stress, Verdict
from fnostab.decision.sweep import Along
from fnostab.report.verdict import print_case
from fnostab.show.console import Console

TEXT_WIDTH = 100  # columns of the text form, at most those of the terminal


@dataclass(frozen=True, repr=False)
class Case:
    """A verdict with the evidence behind it; its repr is text, and a notebook shows it as the first box of a report.

    Attributes:
        stages: trials of each stage.
        studies: study by stage, anything with the attributes of a `StudySpec`.
        judged: lines on what is judged (study, date, number of trials), and on what looks wrong with it.
        command: command line of the next step, to be pasted; empty if there is none.
        stress: result of a stress study; None for other studies.
        along: result of a study of one setting at several values; None for other studies.
    """

    verdict: Verdict
    stages: Sequence[Stage]
    studies: Mapping[str, Any] = field(default_factory=dict)
    judged: Sequence[str] = ()
    command: str = ""
    stress: Stress | None = None
    along: Along | None = None

    @property
    def sentences(self) -> Sequence[str]:
        """Answer for every arm; none in a stress study, whose arms differ in the knob as well."""
        return self.verdict.sentences if self.stress is None else ()

    def __repr__(self) -> str:
        text = StringIO()
        width = min(TEXT_WIDTH, shutil.get_terminal_size((TEXT_WIDTH, 0)).columns)
        console = Console(file=text, width=width, force_jupyter=False, color_system=None)
        print_case(self, console)
        return text.getvalue().rstrip()

    def _repr_html_(self) -> str:
        from fnostab.report.documents import to_box  # slow to import, since it draws

        return to_box(self)
