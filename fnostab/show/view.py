"""A study while it runs: a live table in a terminal, plain lines elsewhere."""

import math
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from fnostab.record.progress import TrialProgress
from fnostab.show.console import say
from fnostab.show.rendering import arms_table, line_of_end, line_of_progress, summary, trials_table
from fnostab.show.state import StudyState

__all__ = ["Display", "StudyView", "snapshot"]

LINE_EVERY_S = 10.0  # of plain progress, so that it is never silent for long
SHOWN_ENDED = 3  # of the trials that ended last, below those under way
LINES_AROUND = 8  # title, headings, legend, summary, and two to spare
IN_ONE_LINE = 4  # trials whose progress a plain line holds


class Display:
    """Shows states of a study one after the other. Use as a context manager.

    The end of trials that are ``known`` is no news.

    Attributes:
        study: what is left on the screen at the end.
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
        """Show how the study stands now."""
        self.study = study
        if self._live is not None:
            self._live.update(self._drawn(study))
        else:
            self._print_lines(study)

    def was_told(self, name: str) -> None:
        """Print no line of a trial's end."""
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


class StudyView:
    """Shows what `run_study` runs: arms x seeds, the outcome of each trial, and the progress of running ones.

    Use as a context manager and call `update` often; it draws at most a few times a second.
    """

    def __init__(self, title: str, trials: Sequence[TrialProgress], jobs: int, console: Console) -> None:
        self.title = title
        self.trials = trials
        self.jobs = jobs
        self._display = Display(console, {t.name for t in trials if t.finished})

    def __enter__(self) -> Self:
        self._display.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._display.study = self._state([], None)  # none is running any more
        self._display.__exit__(kind, error, tb)

    def was_told(self, trial: TrialProgress) -> None:
        """Keep the end of this attempt out of the lines that follow, since a line of its own has told of it."""
        self._display.was_told(trial.name)

    def update(self, running: Sequence[TrialProgress], unsent: str | None, unseen: str | None = None) -> None:
        """Show the state of all trials, those under way, and what keeps records from the store or news from here."""
        trouble = unseen or (f"records wait on disk: {unsent}" if unsent else None)
        self._display.update(self._state([trial for trial in running if not trial.queued], trouble))

    def _state(self, running: Sequence[TrialProgress], trouble: str | None) -> StudyState:
        at_work = set(running)
        for trial in self.trials:
            trial.running = trial in at_work
        return StudyState(self.title, self.trials, self.jobs, trouble=trouble)


def snapshot(study: StudyState, console: Console, most: int = 40) -> None:
    """Print one picture of a study, with at most ``most`` single trials."""
    console.print(_picture(study, console.width, most, most), highlight=False)


def _picture(study: StudyState, width: int, room: int, most_ended: int) -> RenderableType:
    """Arms, the trials under way, those that ended last, and a summary."""
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
