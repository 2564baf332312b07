"""Judge a study of one setting at several values, and render it for a terminal."""

from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from fnostab.decision import NextKind, NextStep
from fnostab.decision.sweep import Along, compare_along, values_along
from fnostab.record.plurals import counted
from fnostab.report.remarks import conditions, left_out
from fnostab.report.tables import percent, plain_table, trial_table

if TYPE_CHECKING:
    from fnostab.report.case import Case


def render_along(along: Along, case: "Case") -> RenderableType:
    """Render tables of trials and of failure rate by value, then the answers for arms and the finding."""
    name = along.setting.rpartition(".")[2]
    columns = (name, "arm", "failed", "95 %", "median of those\nthat did not fail")
    table = plain_table(f"Failure rate by {along.setting}", columns, "outcomes")
    for place in along.places:
        s = place.summary
        outcomes = ", ".join(f"{n} {outcome}" for outcome, n in sorted(s.outcomes.items()))
        failed = f"{s.n_failed}/{s.n}" if s.n else "-"
        median = "-" if s.median is None else f"{s.median:.4g}"
        table.add_row(f"{place.value:g}", s.arm, failed, percent(s.failure_rate_ci), median, outcomes)
    lines = [line for place in along.places if (line := left_out(place.summary))]
    held = conditions(case.studies)
    parts = [
        *(each for stage in case.stages for each in trial_table(stage, case.verdict)),
        table,
        *([Text("\n".join(lines))] if lines else []),
        Text("\n".join(case.verdict.sentences)),
        *([Text("\n".join(held), style="dim")] if held else []),
        Text.assemble((along.finding, "bold"), f"\nnext: {case.verdict.next.text}"),
    ]
    return Group(*(part for each in parts for part in (each, Text())))


def with_along(case: "Case") -> "Case":
    """Add the result along one setting to a case whose arms differ in that setting alone; else return it unchanged.

    A case whose failures only decrease with the value, as with warm-up, is unchanged too: its answers say that.
    """
    study = case.studies["a"]
    if len(case.stages) > 1 or study.roles or study.knob or not getattr(study, "arms", None):
        return case
    if (found := values_along(study.arms)) is None or not any(s.outcomes for s in case.verdict.arms):
        return case
    along = compare_along(case.stages[0], *found, study.control)
    if along.falls:
        return case
    step, command = replace(case.verdict.next, text=_next_text(along)), case.command
    if along.lowest:
        step = NextStep(NextKind.ELSEWHERE, step.text)
        command = getattr(study, "next_of", {}).get(along.lowest.summary.arm, "")  # a study file names none
    verdict = replace(case.verdict, reason=along.finding, next=step)
    return replace(case, verdict=verdict, command=command, along=along)


def _next_text(along: Along) -> str:
    if along.lowest is not None:
        return f"study arms at {along.setting} {along.lowest.value:g}"
    seen = [place for place in along.places if place.summary.n]
    if not seen:
        return "rerun the trials that ran out of memory at a smaller size"
    bound, n = seen[-1].summary.failure_rate_upper, seen[-1].summary.n
    return (
        f"more seeds or a higher {along.setting}: {counted(n, 'trial')} without a failure at "
        f"{seen[-1].value:g} leave{'' if n > 1 else 's'} a failure rate of up to {bound or 0:.0%} possible (95 %)"
    )
