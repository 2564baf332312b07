"""Render answers and a verdict for a terminal, as JSON and as Markdown."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from fnostab.decision import Verdict, VerdictName
from fnostab.report.remarks import conditions, limits, look_text, remarks
from fnostab.report.stress import render_stress
from fnostab.report.sweep import render_along
from fnostab.report.tables import arms_table, criteria_table, median_and_iqr, percent, test_text, trial_table
from fnostab.show.console import say

if TYPE_CHECKING:
    from fnostab.report.case import Case

COLOURS = {
    VerdictName.GOLD: "bold yellow",
    VerdictName.SILVER: "bold",
    VerdictName.PIVOT: "bold magenta",
    VerdictName.INCONCLUSIVE: "bold cyan",
}


def print_case(case: "Case", console: Console, *, evidence: bool = False) -> None:
    """Print what `render` shows, then the next command on a line of its own, to be pasted."""
    console.print(render(case, evidence=evidence), highlight=False)
    if case.command:
        say(console, f"  {case.command}\n", style="bold")


def render(case: "Case", *, evidence: bool = False) -> RenderableType:
    """Render the judged study, a table of arms, a sentence for each, the verdict and the next step.

    A stress study, and one along a single setting, have tables of their own instead. ``evidence`` adds criteria,
    tests, intervals and run ids.
    """
    verdict = case.verdict
    parts: list[RenderableType] = [Text("\n".join(case.judged), style="dim")] if case.judged else []
    judged = [part for each in parts for part in (each, Text())]
    if case.along is not None:
        return Group(*judged, render_along(case.along, case))
    if case.stress is not None:
        return Group(*judged, render_stress(case.stress, verdict), Text(f"next: {verdict.next.text}"), Text())
    for stage in case.stages:
        parts.append(arms_table(stage, verdict))
        if said := _sentences(verdict, stage.name):
            parts.append(Text("\n".join(said)))
    if evidence:
        for stage in case.stages:
            parts += [criteria_table(stage.name, verdict), *trial_table(stage, verdict)]
        parts.append(Text("\n".join((*remarks(case), *conditions(case.studies))), style="dim"))
    elif case.studies:
        lines = limits(case.studies)
        parts += [Text("\n".join(lines), style="dim")] if lines else []
    return Group(*(part for each in (*parts, _conclusion(case)) for part in (each, Text())))


def render_briefly(case: "Case") -> RenderableType:
    """Render sentences, verdict and next step, for a terminal that has already shown the trials."""
    said = "\n".join(line for stage in case.stages for line in _sentences(case.verdict, stage.name))
    return Group(Text(said), Text(), _conclusion(case))


def in_lines(case: "Case") -> list[str]:
    """Write the verdict and the answer for every arm as plain lines, for a message."""
    verdict = case.verdict
    if case.stress is not None or case.along is not None:
        return [verdict.reason]
    said = verdict.headline if verdict.name is None else f"{verdict.headline}: {verdict.reason}"
    return [said, *verdict.sentences]


def _sentences(verdict: Verdict, stage: str) -> list[str]:
    return [text for answer, text in zip(verdict.answers, verdict.sentences, strict=True) if answer.stage == stage]


def _conclusion(case: "Case") -> RenderableType:
    verdict = case.verdict
    lines = []
    if verdict.name is not None:
        lines.append(Text.assemble((verdict.headline, COLOURS[verdict.name]), f": {verdict.reason}"))
    if level := look_text(verdict):
        lines.append(Text(level))
    lines.append(Text(f"next: {verdict.next.text}"))
    return Group(*lines)


def to_json(case: "Case") -> dict[str, Any]:
    """Convert everything that `render` shows to JSON-ready data."""
    verdict, along = case.verdict, case.along
    lowest = along.lowest if along else None
    return {
        "verdict": None if verdict.name is None else str(verdict.name),
        "headline": verdict.headline,
        "supported": verdict.supported,
        "reason": verdict.reason,
        "next": {**asdict(verdict.next), "kind": str(verdict.next.kind), "command": case.command},
        "next_step": verdict.next.text,
        "winner": verdict.winner,
        "stage_b": list(verdict.stage_b),
        "look": {"number": verdict.rules.look, "level": verdict.rules.level, "planned": verdict.rules.looks_planned},
        "judged": list(case.judged),
        "conditions": conditions(case.studies),
        "studies": {
            stage: {name: getattr(study, name, None) for name in ("name", "hash", "profile")}
            for stage, study in case.studies.items()
        },
        "answers": [
            {**asdict(answer), "name": str(answer.name), "because": str(answer.because), "sentence": text}
            for answer, text in zip(verdict.answers, verdict.sentences, strict=True)
        ],
        "arms": [asdict(summary) for summary in verdict.arms],
        "criteria": [{**asdict(criterion), "state": str(criterion.state)} for criterion in verdict.criteria],
        "stress": None if case.stress is None else asdict(case.stress),
        "special": along and {"setting": along.setting, "lowest_failing": lowest.value if lowest else None},
        "trials": [
            {
                "stage": s.name,
                **{name: value for name, value in vars(t).items() if not name.startswith("_")},
                "outcome": str(t.outcome),
                "measures": dict(t.measures),
                "rules_held": [str(r) for r in t.rules_held],
            }
            for s in case.stages
            for t in s.trials
        ],
    }


def to_markdown(case: "Case") -> str:
    """Render the case as Markdown, for the verdict's page in MLflow, below its headline."""
    verdict = case.verdict
    lines = [verdict.reason, ""] if verdict.reason else []
    lines += [*(f"- {text}" for text in case.sentences), "", f"Next: {verdict.next.text}"]
    lines += ["", f"    {case.command}"] if case.command else []
    lines += ["", *(f"- {line}" for line in (*case.judged, *remarks(case), *conditions(case.studies)))]
    lines += _table(
        verdict,
        ("arm", "failed", "95 % interval", "median [quartiles] of those that did not fail"),
        [(s.stage, s.arm, f"{s.n_failed}/{s.n}", percent(s.failure_rate_ci), median_and_iqr(s)) for s in verdict.arms],
    )
    lines += _table(
        verdict,
        ("arm", "criterion", "state", "observed", "test"),
        [(c.stage, c.arm, _in_words(c.name), _in_words(c.state), c.detail, test_text(c)) for c in verdict.criteria],
    )
    return "\n".join(lines) + "\n"


def _table(verdict: Verdict, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; a row begins with its stage, which is shown where there is more than one."""
    staged = bool(verdict.stage_title("a"))
    heads = ("stage", *columns) if staged else columns
    cells = ((verdict.stage_title(stage), *row) if staged else row for stage, *row in rows)
    return ["", *(f"| {' | '.join(row)} |" for row in (heads, ["---" for _ in heads], *cells))]


def _in_words(name: str) -> str:
    return name.replace("_", " ")
