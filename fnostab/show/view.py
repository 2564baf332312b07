"""Show a study while it runs: as a live table in a terminal, as plain lines elsewhere."""

import math
import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from fnostab.show.console import say
from fnostab.show.rendering import arms_table, line_of_end, line_of_progress, summary, trials_table
from fnostab.show.state import StudyState

LINE_EVERY_S = 10.0  # between plain lines of progress
SHOWN_ENDED = 3  # trials that ended last, shown below the running ones
SHOWN_ONCE = 40  # trials in a snapshot
LINES_AROUND = 8  # title, headings, legend, summary, and two to spare
IN_ONE_LINE = 4  # trials whose progress fits into a plain line


class Display:
    """Shows a study: arms x seeds, outcomes, the progress of running trials. Use as a context manager.

    `update` may be called often: a terminal is drawn at most twice a second. The end of trials that are ``known``, by
    name, is not reported.

    Attributes:
        study: the last state, which stays on the screen at the end.
    """

    def __init__(self, console: Console, known: set[str] | None = None) -> None:
        self.console = console
        self._reported = known or set()
        self.study: StudyState | None = None
        self._line_s = -math.inf  # the first line is due at once
        drawable = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(console=console, refresh_per_second=2, transient=False) if drawable else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        last = Text("") if self.study is None else arms_table(self.study, self.console.width)
        if self._live is not None:
            self._live.update(last)
            self._live.stop()
        elif self.study is not None:
            self.console.print(last, highlight=False)

    def update(self, study: StudyState) -> None:
        """Show the current state of the study."""
        self.study = study
        if self._live is not None:
            self._live.update(self._drawn(study))
        else:
            self._print_lines(study)

    def was_told(self, name: str) -> None:
        """Print no line about this end of a trial."""
        self._reported.add(name)

    def _drawn(self, study: StudyState) -> RenderableType:
        n_arms = len({trial.arm for trial in study.trials})
        room = max(SHOWN_ENDED, self.console.height - n_arms - LINES_AROUND)
        return _picture(study, self.console.width, room, SHOWN_ENDED)

    def _print_lines(self, study: StudyState) -> None:
        for trial in study.trials:
            if trial.settled is not None and trial.name not in self._reported:
                self._reported.add(trial.name)
                self._print(f"{line_of_end(trial)}  [{summary(study)}]")
            elif trial.settled is None:
                self._reported.discard(trial.name)  # it is tried again
        if time.monotonic() - self._line_s > LINE_EVERY_S:
            parts = [line_of_progress(trial) for trial in study.running[:IN_ONE_LINE]] or [summary(study)]
            if more := len(study.running) - IN_ONE_LINE:
                parts += [f"and {more} more"] if more > 0 else []
            self._print("  ".join(parts) + (f"  {study.trouble}" if study.trouble else ""))

    def _print(self, line: str) -> None:
        say(self.console, line)
        self._line_s = time.monotonic()


def snapshot(study: StudyState, console: Console) -> None:
    """Print the state of a study once, with at most `SHOWN_ONCE` single trials."""
    console.print(_picture(study, console.width, SHOWN_ONCE, SHOWN_ONCE), highlight=False)


def _picture(study: StudyState, width: int, room: int, most_ended: int) -> RenderableType:
    """Render arms, running trials, the trials that ended last, and a summary."""
    running = study.running
    ended = [t for t in study.trials if t.ended_s is not None]
    ended = sorted(ended, key=lambda t: t.ended_s or 0.0, reverse=True)[:most_ended]
    rows = (running + ended)[:room]
    lines: list[RenderableType] = [arms_table(study, width)]
    if rows:
        lines += [Text(""), trials_table(rows, width)]
    if len(running) > room:
        lines.append(Text(f"and {len(running) - room} more running", style="dim"))
    lines.append(Text(summary(study), style="dim"))
    if study.trouble:
        lines.append(Text(study.trouble, style="yellow"))
    return Group(*lines)
