"""Render a study's state as tables and lines of text, for terminals of any width, with or without colours.

Columns that do not fit are left out by priority; they are neither wrapped nor cut.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fnostab.record.norm_curve import NONFINITE, sparkline
from fnostab.record.outcomes import Outcome
from fnostab.record.plurals import counted
from fnostab.record.progress import TrialState
from fnostab.show.state import StudyState
from fnostab.stats.proportions import wilson

RUNNING, WAITING = "running", "waiting"  # states of a trial without an outcome
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
MOST_LINES = 3  # lines of an arm's symbols; if they need more, each symbol is counted instead
GAP = 2  # characters between columns
CURVE_WIDTH = (8, 40)  # least and most characters of a sparkline
FIRST_TO_GO = ("spikes", "time left", "curve", "grad norm", "loss")  # columns of trials that a narrow terminal lacks


def arms_table(study: StudyState, width: int) -> RenderableType:
    """Render arms x seeds with the failures of each arm, their rate and interval if these fit, and a legend."""
    arms = {arm: [t for t in study.trials if t.arm == arm] for arm in dict.fromkeys(t.arm for t in study.trials)}
    failed = {arm: _failed(trials) for arm, trials in arms.items()}
    rates = {arm: _rate(trials) for arm, trials in arms.items()}
    taken = _widest("arm", arms) + GAP + _widest("failed", failed.values()) + GAP
    with_rate = width - taken - _widest("rate [95 %]", rates.values()) - GAP
    shows_rate = with_rate >= _least_width(arms.values())
    room = with_rate if shows_rate else width - taken
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    table.add_column("arm", no_wrap=True)
    table.add_column("seeds")
    table.add_column("failed", justify="right", no_wrap=True)
    if shows_rate:
        table.add_column("rate [95 %]", no_wrap=True)
    for arm, trials in arms.items():
        table.add_row(arm, _cells(trials, room), failed[arm], *([rates[arm]] if shows_rate else []))
    return Group(Text(study.title, style="italic"), table, _legend(study.trials))


def trials_table(trials: Sequence[TrialState], width: int) -> RenderableType:
    """Render a line for each trial: its progress or outcome, and its curve of gradient norms."""
    texts = {
        "trial": [t.name for t in trials],
        "step": [_progress(t) for t in trials],
        "loss": [_number(t.loss) for t in trials],
        "grad norm": [_number(t.grad_norm) for t in trials],
        "curve": [""] * len(trials),
        "spikes": ["-" if t.spikes is None else str(t.spikes) for t in trials],
        "time left": [_time_left(t) for t in trials],
    }
    if not any(t.curve for t in trials):
        del texts["curve"]
    if not any(t.running for t in trials):
        del texts["time left"]
    widths = {name: _widest(name, column) for name, column in texts.items()} | {"curve": CURVE_WIDTH[0]}
    for name in FIRST_TO_GO:
        if sum(widths[each] + GAP for each in texts) - GAP > width:
            texts.pop(name, None)
    if "curve" in texts:
        spare = width - sum(widths[each] + GAP for each in texts if each != "curve")
        n = max(CURVE_WIDTH[0], min(CURVE_WIDTH[1], spare))
        curves = [_curve(t, n) for t in trials]
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for name in texts:
        heading = "grad norm, max, log" if name == "curve" and n >= len("grad norm, max, log") else name
        justify = "left" if name in ("trial", "curve") else "right"
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for row, trial in enumerate(trials):
        style = SYMBOLS[trial.settled][1] if trial.settled else ""
        cells: list[RenderableType] = [curves[row] if name == "curve" else texts[name][row] for name in texts]
        if "step" in texts:
            cells[list(texts).index("step")] = Text(_progress(trial), style=style)
        table.add_row(*cells)
    return table


def summary(study: StudyState) -> str:
    """Describe the progress of a study in one line."""
    done = sum(t.settled is not None for t in study.trials)
    left = study.seconds_left() if study.running else None  # a stopped study has no end in sight
    about = f", about {duration(left)} left" if left is not None and left >= 1 else ""
    if study.complete:
        return f"{done} of {counted(len(study.trials), 'trial')}{about}"
    return f"{counted(done, 'trial')} ended, {len(study.running)} running" + (f"{about} for these" if about else "")


def line_of_end(trial: TrialState) -> str:
    """Describe the end of a trial in one line."""
    why = f" ({trial.reason})" if trial.reason else ""
    took = f", {duration(trial.seconds)}" if trial.seconds is not None else ""
    return f"{trial.name}: {trial.settled}{trial.where_failed}{why}{took}"


def line_of_progress(trial: TrialState) -> str:
    """Describe the progress of a running trial as a part of a line."""
    spikes = f" spikes {trial.spikes}" if trial.spikes else ""
    return f"{trial.name} {_progress(trial)} loss {_number(trial.loss)} grad norm {_number(trial.grad_norm)}{spikes}"


def _progress(trial: TrialState) -> str:
    """Describe the progress of a trial, or its outcome."""
    if trial.settled is not None:
        return str(trial.settled) + (f" @{trial.failure_step}" if trial.failure_step is not None else "")
    if trial.step is None:
        waits = trial.waits or (RUNNING if trial.running else WAITING)
        return f"{waits}, {duration(trial.seconds)}" if trial.waits and trial.seconds else waits
    if trial.step + 1 == trial.scheduled_steps:
        return "evaluating"
    return f"{trial.step + 1}/{trial.scheduled_steps or '?'}"


def duration(seconds: float) -> str:
    """Write a time in seconds, minutes or hours, whichever suits it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 120 * 60 else f"{seconds / 3600:.0f} h"


def _cells(trials: Sequence[TrialState], room: int) -> Text:
    """Render a symbol for each seed, or a count of each symbol if they take too many lines."""
    if 2 * len(trials) - 1 <= MOST_LINES * room:
        return Text(" ").join(Text.assemble(SYMBOLS[_state(t)]) for t in trials)
    counts = Counter(_state(t) for t in trials)
    return Text("  ").join(Text.assemble(f"{counts[each]} ", SYMBOLS[each]) for each in SYMBOLS if each in counts)


def _least_width(arms: Iterable[Sequence[TrialState]]) -> int:
    longest = max((2 * len(trials) - 1 for trials in arms), default=0)
    return min(longest, 19)  # ten symbols in a line


def _legend(trials: Sequence[TrialState]) -> Text:
    states = {_state(t) for t in trials}
    return Text("  ").join(
        Text.assemble(symbol, f"\N{NO-BREAK SPACE}{state}") for state, symbol in SYMBOLS.items() if state in states
    )


def _state(trial: TrialState) -> str:
    return trial.settled or (RUNNING if trial.running else WAITING)


def _failed(trials: Sequence[TrialState]) -> str:
    return f"{sum(t.failed for t in trials)}/{sum(t.judged for t in trials)}"


_interval = lru_cache(maxsize=1024)(wilson)


def _rate(trials: Sequence[TrialState]) -> str:
    failed, judged = sum(t.failed for t in trials), sum(t.judged for t in trials)
    interval = _interval(failed, judged)
    return "" if interval is None else f"{failed / judged:.0%} [{interval.low:.0%}, {interval.high:.0%}]"


def _curve(trial: TrialState, width: int) -> Text:
    text = Text(sparkline(trial.curve, width) if trial.curve else "", no_wrap=True)
    text.highlight_words([NONFINITE], "bold red")
    return text


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _time_left(trial: TrialState) -> str:
    return "-" if trial.seconds_left is None else duration(trial.seconds_left)


def _widest(heading: str, texts: Iterable[str]) -> int:
    return max(len(text) for text in (heading, *texts))
