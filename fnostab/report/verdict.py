"""A verdict as a person, a program and a web page read it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from fnostab.decision import ArmSummary, Criterion, Stage, State, Verdict, VerdictName
from fnostab.trial import StudySpec

__all__ = ["conditions", "headline", "render", "to_json", "to_markdown"]

COLOURS = {
    VerdictName.GOLD: "bold yellow",
    VerdictName.SILVER: "bold",
    VerdictName.PIVOT: "bold magenta",
    VerdictName.INCONCLUSIVE: "bold cyan",
    State.MET: "green",
    State.NOT_MET: "red",
    State.UNTESTABLE: "yellow",
}
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
    parts: list[RenderableType] = [_arm_table(verdict.arms), _criterion_table(verdict.criteria)]
    parts += [Text(line) for line in (*verdict.best, *(f"no part in rates: {line}" for line in verdict.excluded))]
    parts += [_run_table(stages), Text(conditions(studies), style="dim")]
    parts += [Text(headline(verdict), style=COLOURS[verdict.name]), Text(f"next: {verdict.next_step}")]
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


def _arm_table(arms: Sequence[ArmSummary]) -> Table:
    table = Table(title="What became of each arm", title_justify="left", box=None, pad_edge=False)
    for column in ("stage", "arm", "failed", "95 % interval", "median loss of successes", "SSIM", "outcomes"):
        table.add_column(column, no_wrap=column != "outcomes")
    for s in arms:
        outcomes = ", ".join(f"{n} {outcome}" for outcome, n in sorted(s.outcomes.items()))
        ssim = "-" if s.median_ssim_amp is None else f"{s.median_ssim_amp:.3f}"
        failed = f"{s.n_failed}/{s.n}"
        table.add_row(s.stage.upper(), s.arm, failed, _interval(s.failure_rate_ci), _median(s), ssim, outcomes)
    return table


def _criterion_table(criteria: Sequence[Criterion]) -> Table:
    table = Table(title="Criteria, arm against control", title_justify="left", box=None, pad_edge=False)
    for column in ("stage", "arm", "criterion", "state", "evidence"):
        table.add_column(column, no_wrap=column != "evidence")
    for c in criteria:
        name = c.name if c.decides else f"({c.name})"
        table.add_row(c.stage.upper(), c.arm, name, Text(str(c.state), style=COLOURS[c.state]), c.detail)
    return table


def _run_table(stages: Sequence[Stage]) -> Table:
    table = Table(title="Trials and their runs", title_justify="left", box=None, pad_edge=False)
    for column in ("stage", "arm", "seed", "outcome", "loss", "failed at", "MLflow run"):
        table.add_column(column, no_wrap=True, justify="right" if column in ("seed", "loss", "failed at") else "left")
    for stage in stages:
        for t in stage.trials:
            loss = "-" if t.loss is None else f"{t.loss:.4g}"
            failed_at = "-" if t.failure_step is None else f"step {t.failure_step}"
            run_id = t.run_id or "-"
            table.add_row(stage.name.upper(), t.arm, str(t.seed), str(t.outcome), loss, failed_at, run_id)
    return table


def _interval(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.0%} to {interval[1]:.0%}"


def _median(summary: ArmSummary) -> str:
    if summary.median is None or summary.iqr is None:
        return f"none (0/{summary.n})"
    low, high = summary.iqr
    return f"{summary.median:.4g} [{low:.4g}, {high:.4g}] ({summary.n_ok}/{summary.n})"
