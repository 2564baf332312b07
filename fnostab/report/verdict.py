"""A verdict as a person, a program and a web page read it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from fnostab.decision import ArmSummary, Criterion, Stage, State, Verdict, VerdictName
from fnostab.trial import StudySpec

__all__ = ["conditions", "headline", "print_verdict", "render", "to_json", "to_markdown"]

COLOURS = {
    VerdictName.GOLD: "bold yellow",
    VerdictName.SILVER: "bold",
    VerdictName.PIVOT: "bold magenta",
    VerdictName.INCONCLUSIVE: "bold cyan",
    State.MET: "green",
    State.NOT_MET: "red",
    State.UNTESTABLE: "yellow",
}
LOSSES = "median loss [IQR] (n_ok/N)"
OF_CONTROL = {  # what a verdict holds for, as the control arm has it
    "learning rate": "training.learning_rate",
    "blocks": "model.fno_blocks",
    "epochs": "training.epochs",
}


def conditions(studies: Mapping[str, StudySpec]) -> str:
    """What the verdict holds for: profile, learning rate, depth and horizon of each stage's control."""
    lines = []
    for stage, study in studies.items():
        control = study.arms[study.control]
        values = ", ".join(f"{label} {control[key]:g}" for label, key in OF_CONTROL.items())
        lines.append(f"Stage {stage.upper()}: {study.name}, {study.profile} profile, {values}")
    if any(study.profile == "small" for study in studies.values()):
        lines.append("The small profile is a scale model: a demonstration, not a basis for policy.")
    return "\n".join(lines)


def headline(verdict: Verdict) -> str:
    """The verdict in one sentence."""
    return f"{verdict.name}: {verdict.reason}"


def render(verdict: Verdict, stages: Sequence[Stage], studies: Mapping[str, StudySpec]) -> RenderableType:
    """Tables for a terminal, every number with the runs that it came from."""
    parts = [table for stage in stages for table in _stage_tables(stage, verdict)]
    parts.append(Text("\n".join([*verdict.best, *(f"no part in rates: {line}" for line in verdict.arms if line.excluded_line)])))
    parts.append(Text(conditions(studies), style="dim"))
    conclusion = Text.assemble((str(verdict.name), COLOURS[verdict.name]), f": {verdict.reason}")
    parts.append(Group(conclusion, Text(f"next: {verdict.next_step}")))
    return Group(*(part for each in parts for part in (each, Text())))


def to_json(verdict: Verdict, stages: Sequence[Stage], studies: Mapping[str, StudySpec]) -> dict[str, Any]:
    """Everything that `render` shows, JSON-ready."""
    trials = [{"stage": s.name, **asdict(t), "outcome": str(t.outcome)} for s in stages for t in s.trials]
    return {
        "verdict": str(verdict.name),
        "reason": verdict.reason,
        "next_step": verdict.next_step,
        "conditions": conditions(studies),
        "studies": {stage: {"name": s.name, "hash": s.hash, "profile": s.profile} for stage, s in studies.items()},
        "arms": [asdict(summary) for summary in verdict.arms],
        "criteria": [{**asdict(criterion), "state": str(criterion.state)} for criterion in verdict.criteria],
        "trials": trials,
    }


def to_markdown(verdict: Verdict, stages: Sequence[Stage], studies: Mapping[str, StudySpec]) -> str:
    """The same as Markdown, for the verdict's page in MLflow."""
    lines = [f"**{headline(verdict)}**", "", f"Next: {verdict.next_step}", "", conditions(studies), ""]
    lines += ["| stage | arm | failed | 95 % interval | median loss (n_ok/N) |", "|---|---|---|---|---|"]
    lines += [
        f"| {s.stage} | {s.arm} | {s.n_failed}/{s.n} | {_interval(s.failure_rate_ci)} | {_median(s)} |"
        for s in verdict.arms
    ]
    lines += ["", "| stage | arm | criterion | state | evidence |", "|---|---|---|---|---|"]
    lines += [f"| {c.stage} | {c.arm} | {c.name} | {c.state} | {c.detail} |" for c in verdict.criteria]
    return "\n".join(lines) + "\n"


def print_verdict(
    console: Console, verdict: Verdict, stages: Sequence[Stage], studies: Mapping[str, StudySpec]
) -> None:
    """Write `render` to a terminal."""
    console.print(render(verdict, stages, studies), highlight=False)


def _stage_tables(stage: Stage, verdict: Verdict) -> Iterable[RenderableType]:
    title = f"Stage {stage.name.upper()}"
    arms = _table(f"{title}: what became of each arm", ("arm", "failed", "95 % interval", LOSSES), "outcomes")
    for s in (summary for summary in verdict.arms if summary.stage == stage.name):
        outcomes = ", ".join(f"{n} {outcome}" for outcome, n in sorted(s.outcomes.items()))
        arms.add_row(s.arm, f"{s.n_failed}/{s.n}", _interval(s.failure_rate_ci), _median(s), outcomes)
    yield arms

    criteria = _table(f"{title}: criteria, arm against control", ("arm", "criterion", "state"), "evidence")
    for arm, names, state, detail in _alike(c for c in verdict.criteria if c.stage == stage.name):
        criteria.add_row(arm, "\n".join(names), Text(state, style=COLOURS[state]), detail)
    yield criteria

    trials = _table(f"{title}: trials and their runs", ("arm", "seed", "outcome", "loss", "failed at", "MLflow run"))
    for t in stage.trials:
        loss = "-" if t.loss is None else f"{t.loss:.4g}"
        failed_at = "-" if t.failure_step is None else f"step {t.failure_step}"
        trials.add_row(t.arm, str(t.seed), str(t.outcome), loss, failed_at, t.run_id or "-")
    yield trials


def _table(title: str, columns: Sequence[str], wrapped: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True)
    if wrapped:
        table.add_column(wrapped)
    return table


def _alike(criteria: Iterable[Criterion]) -> Iterable[tuple[str, list[str], State, str]]:
    """Neighbouring criteria of an arm with the same state for the same reason, as one line."""
    for (arm, state, detail), group in groupby(criteria, lambda c: (c.arm, c.state, c.detail)):
        yield arm, [c.name if c.decides else f"({c.name})" for c in group], state, detail


def _interval(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.0%} to {interval[1]:.0%}"


def _median(summary: ArmSummary) -> str:
    if summary.median is None or summary.iqr is None:
        return f"none (0/{summary.n})"
    low, high = summary.iqr
    return f"{summary.median:.4g} [{low:.4g}, {high:.4g}] ({summary.n_ok}/{summary.n})"
