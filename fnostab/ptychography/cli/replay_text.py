"""Render a replay as text for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fnostab.record.outcomes import Outcome

if TYPE_CHECKING:
    from fnostab.monitor.module_probe import ModuleState
    from fnostab.ptychography.training.replay import Replay

MOST_MODULES = 8
MUCH_DEAD = 0.5  # share of dead channels from which a module is mentioned
MOST_INDICES = 8  # indices of the batch to show
LONGEST_NAME = 40
HAPPENED = {
    Outcome.COLLAPSED: "the output is constant",
    Outcome.EXPLODED: "the validation loss has exploded",
    Outcome.STAGNATED: "the loss is no better than a constant output's",
}
COLUMNS = ("step", "output\nrms", "gradient", "dead", "update/\nweight")


def render(replay: Replay) -> RenderableType:
    """Render the headline, the exactness of the replay, where the failure began, and the modules that changed most."""
    lines = [Text(_headline(replay), style="bold"), *map(Text, _findings(replay))]
    shown, left_out = _most_changed(replay)
    if not shown:
        return Group(*lines, Text("The network has no modules of its own to watch."))
    return Group(*lines, Text(), _table(replay, shown), Text(_footnote(replay, left_out)), Text())


def _headline(replay: Replay) -> str:
    settings = ", ".join(f"{name}={value}" for name, value in replay.changed.items())
    failed, last = replay.failure.failure_step, max(replay.losses)
    if replay.outcome is None:
        what = f"the failure does not happen, up to step {last}"
        return f"with {settings}: {what}" if settings else f"step {failed}: {what}"
    happened = HAPPENED.get(replay.outcome) or _nonfinite(replay)
    if settings:
        return f"with {settings}: step {replay.failed_at}: {happened}"
    return f"step {replay.failed_at}{' again' if replay.failed_at == failed else ''}: {happened}"


def _nonfinite(replay: Replay) -> str:
    step = -1 if replay.failed_at is None else replay.failed_at
    values = {"loss": replay.losses.get(step, 0.0), "gradient": replay.grad_norms.get(step, 0.0)}
    first = next((name for name, value in values.items() if not math.isfinite(value)), "validation loss")
    return f"the {first} is not finite"


def _exactness(replay: Replay) -> str:
    equal, compared = replay.n_equal, replay.n_compared
    if replay.changed:
        return f"The trial itself: {replay.failure.outcome} at step {replay.failure.failure_step}."
    if not compared:
        return "The trial's record has no step in common with the replay: nothing could be compared."
    if equal == compared:
        return f"Bit-equal with the trial's record: loss and gradient norm of all {compared} steps."
    return (
        f"NOT bit-equal with the trial's record: {equal} of {compared} steps have the same loss and gradient norm. "
        f"{_why_not(replay)}"
    )


def _why_not(replay: Replay) -> str:
    environment = replay.failure.environment
    torch_then = dict(environment.get("packages", {})).get("torch", "unknown")
    device = environment.get("device", "unknown")
    from importlib.metadata import version

    then, now = f"torch {torch_then} on {device}", f"torch {version('torch')} on {replay.device}"
    if then == now:
        return "It ran with the same torch on the same kind of device, so another processor or changed code may be why."
    return f"The trial ran with {then}, this is {now}: that may be why."


def _findings(replay: Replay) -> list[str]:
    return [line for line in (_exactness(replay), _culprit(replay), _dead(replay), _batch(replay)) if line]


def _culprit(replay: Replay) -> str:
    if replay.culprit is None:
        return "Every module's output and gradient stay finite and in range."
    step, module, where, what = replay.culprit
    return f"First out of line: {module}, {where} at step {step}: {what}."


def _dead(replay: Replay) -> str:
    """Sentence on the module with the most dead channels at the end; empty below `MUCH_DEAD`."""
    last = replay.modules[max(replay.modules)]
    name, share = max(((name, s.dead or 0.0) for name, s in last.items()), key=lambda one: one[1], default=("", 0.0))
    if share < MUCH_DEAD:
        return ""
    alive = [step for step, at_step in replay.modules.items() if (at_step[name].dead or 0.0) < MUCH_DEAD]
    since = max(alive, default=min(replay.modules) - 1) + 1
    return f"Dead at the end: {share:.0%} of the channels of {name}; half of them or more since step {since}."


def _batch(replay: Replay) -> str:
    indices = replay.failure.batch
    shown = ", ".join(map(str, indices[:MOST_INDICES]))
    more = f", ... ({len(indices)} in all)" if len(indices) > MOST_INDICES else ""
    return f"Batch of step {replay.failure.failure_step}: patterns {shown}{more}."


def _steps(replay: Replay) -> dict[str, int]:
    """The focus step and its neighbours, as far as they were replayed."""
    near = {"before": replay.focus - 1, "at": replay.focus, "after": replay.focus + 1}
    return {when: step for when, step in near.items() if step in replay.modules}


def _most_changed(replay: Replay) -> tuple[list[str], int]:
    """Modules that changed most around the focus, in network order, and the number of others."""
    near = [replay.modules[step] for step in _steps(replay).values()]
    names = list(dict.fromkeys(name for at_step in near for name in at_step))
    change = {name: _change([at_step[name] for at_step in near if name in at_step]) for name in names}
    if replay.culprit is not None and replay.culprit.module in change:
        change[replay.culprit.module] = math.inf
    most = set(sorted(names, key=lambda name: -change[name])[:MOST_MODULES])
    return [name for name in names if name in most], len(names) - len(most)


def _change(states: list[ModuleState]) -> float:
    """Log of the largest factor by which output or gradient changed, plus changes of dead; inf if not finite."""
    if not all(state.finite for state in states):
        return math.inf
    largest = 0.0
    for values in ([s.output_rms for s in states], [s.gradient for s in states]):
        positive = [value for value in values if value]
        if positive:
            largest = max(largest, math.log(max(positive) / min(positive)))
    return largest + sum(abs((a.dead or 0) - (b.dead or 0)) for a, b in pairwise(states))


def _table(replay: Replay, names: list[str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="")
    table.add_column("module", overflow="ellipsis", max_width=LONGEST_NAME, no_wrap=False)  # shrinks first
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    steps = _steps(replay)
    for name in names:
        of_module = {step: replay.modules[step][name] for step in steps.values() if name in replay.modules[step]}
        _add_rows(table, replay, name, of_module)
    return table


def _add_rows(table: Table, replay: Replay, name: str, states: Mapping[int, ModuleState]) -> None:
    for row, (step, state) in enumerate(states.items()):
        bad = replay.culprit is not None and (step, name) == replay.culprit[:2]
        dead = "-" if state.dead is None else f"{state.dead:.0%}"
        numbers = (_number(state.output_rms), _number(state.gradient), dead, _number(state.update_ratio))
        table.add_row("" if row else name, f"{'> ' if bad else ''}{step}", *numbers, style="bold" if bad else "")


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Inf"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.1e}"


def _footnote(replay: Replay, left_out: int) -> str:
    mark = " > marks where it began." if replay.culprit is not None else ""
    others = f" {left_out} modules that changed less are in replay.json." if left_out else ""
    return f"Gradient: norm with respect to the output.{mark}{others}"
