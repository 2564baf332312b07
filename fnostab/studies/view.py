"""A study while it runs: a live table in a terminal, plain lines elsewhere."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fnostab.outcomes import FAILURES, Outcome
from fnostab.studies.progress import TrialProgress

__all__ = ["StudyView"]

RUNNING, WAITING = "running", "waiting"  # of a trial without an outcome
SYMBOLS: dict[str, tuple[str, str]] = {
    Outcome.CONVERGED: ("●", "green"),
    Outcome.COLLAPSED: ("C", "bold red"),
    Outcome.EXPLODED: ("E", "bold red"),
    Outcome.NONFINITE: ("N", "bold red"),
    Outcome.STAGNATED: ("S", "bold red"),
    Outcome.OOM: ("M", "yellow"),
    Outcome.KILLED: ("K", "yellow"),
    Outcome.INFRA_ERROR: ("!", "yellow"),
    RUNNING: ("▸", "cyan"),
    WAITING: ("·", "dim"),
}
LINE_EVERY_S = 10.0  # of plain progress, so that it is never silent for long


class StudyView:
    """Shows arms x seeds, what each trial became, and how far the running ones are.

    Use as a context manager and call `update` often; it draws at most a few times a second.
    """

    def __init__(self, title: str, trials: Sequence[TrialProgress], jobs: int, console: Console) -> None:
        self.title = title
        self.trials = trials
        self.jobs = jobs
        self.console = console
        self._live = Live(console=console, refresh_per_second=2) if console.is_terminal else None
        self._reported = {t.name for t in trials if t.finished}
        self._last_line_s = time.monotonic()

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._live is not None:
            self._live.update(self._table([]))
            self._live.stop()
        else:
            self.console.print(self._table([]))

    def update(self, running: Sequence[TrialProgress], trouble: str | None) -> None:
        """Show the state of all trials, those under way, and what keeps the records from the store."""
        if self._live is not None:
            lines = [self._table(running), self._running(running)]
            if trouble:
                lines.append(Text(f"records wait on disk: {trouble}", style="yellow"))
            self._live.update(Group(*lines))
        else:
            self._print_lines(running, trouble)

    def _table(self, running: Sequence[TrialProgress]) -> RenderableType:
        names = {t.name for t in running}
        table = Table(title=self.title, title_justify="left", box=None, pad_edge=False)
        table.add_column("arm", no_wrap=True)
        table.add_column("seeds")
        table.add_column("failed", justify="right")
        for arm in dict.fromkeys(t.spec.arm for t in self.trials):
            trials = [t for t in self.trials if t.spec.arm == arm]
            cells = Text(" ").join(_cell(t, t.name in names) for t in trials)
            failed = sum(t.outcome in FAILURES for t in trials)
            judged = sum(t.outcome is not None and not t.excluded for t in trials)
            table.add_row(arm, cells, f"{failed}/{judged}")
        states = {*(t.outcome or (RUNNING if t.name in names else WAITING) for t in self.trials)}
        legend = Text("  ").join(
            Text.assemble(symbol, f"\N{NO-BREAK SPACE}{state}") for state, symbol in SYMBOLS.items() if state in states
        )
        return Group(table, legend)

    def _running(self, running: Sequence[TrialProgress]) -> RenderableType:
        table = Table(box=None, pad_edge=False)
        for column in ("running", "step", "loss", "grad norm", "time left"):
            table.add_column(column, justify="left" if column == "running" else "right", no_wrap=True)
        for trial in running:
            table.add_row(trial.name, _step(trial), _number(trial.loss), _number(trial.grad_norm), _time_left(trial))
        return Group(table, Text(self._summary(), style="dim"))

    def _summary(self) -> str:
        done = sum(t.outcome is not None for t in self.trials)
        return f"{done} of {len(self.trials)} trials{self._study_time_left()}"

    def _study_time_left(self) -> str:
        ended = [t.seconds() or 0.0 for t in self.trials if t.ended_s and not t.excluded]
        running = [(t.seconds() or 0.0) + left for t in self.trials if (left := t.seconds_left()) is not None]
        if not (expected := ended or running):
            return ""
        mean = sum(expected) / len(expected)
        remaining = sum(max(0.0, mean - self._seconds_done(t)) for t in self.trials if t.outcome is None)
        return f", about {_duration(remaining / self.jobs)} left" if remaining >= 1 else ""

    @staticmethod
    def _seconds_done(trial: TrialProgress) -> float:
        return 0.0 if trial.ended_s else trial.seconds() or 0.0

    def _print_lines(self, running: Sequence[TrialProgress], trouble: str | None) -> None:
        for trial in self.trials:
            if trial.outcome is not None and trial.name not in self._reported:
                self._reported.add(trial.name)
                where = f" at step {trial.failure_step}" if trial.failure_step is not None else ""
                why = f" ({trial.reason})" if trial.reason else ""
                took = _duration(trial.seconds() or 0.0)
                self._print(f"{trial.name}: {trial.outcome}{where}{why}, {took}  [{self._summary()}]")
        if time.monotonic() - self._last_line_s > LINE_EVERY_S:
            states = [f"{t.name} {_step(t)} loss {_number(t.loss)} grad norm {_number(t.grad_norm)}" for t in running]
            self._print("  ".join(states) + (f"  records wait on disk: {trouble}" if trouble else ""))

    def _print(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True)
        self._last_line_s = time.monotonic()


def _cell(trial: TrialProgress, running: bool) -> Text:
    return Text.assemble(SYMBOLS[trial.outcome or (RUNNING if running else WAITING)])


def _step(trial: TrialProgress) -> str:
    if trial.step is not None:
        return f"{trial.step + 1}/{trial.scheduled_steps or '?'}"
    if trial.training_since_s is not None and trial.held_step is not None:
        return f"repeats {trial.held_step + 1}"
    return "starting"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _time_left(trial: TrialProgress) -> str:
    seconds = trial.seconds_left()
    return "-" if seconds is None else _duration(seconds)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 120 * 60 else f"{seconds / 3600:.0f} h"
