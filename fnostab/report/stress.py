"""Judge a stress study and render it for a terminal; imports no module that draws, since that is slow."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from fnostab.decision import NextKind, NextStep, Stage, Stress, Verdict, compare_stress
from fnostab.decision.stress import margin_text
from fnostab.record.outcomes import EXCLUDED, Outcome
from fnostab.record.trial import StudySpec
from fnostab.report.remarks import look_text
from fnostab.report.tables import plain_table

if TYPE_CHECKING:
    from fnostab.report.case import Case


def render_stress(stress: Stress, verdict: Verdict | None = None) -> RenderableType:
    """Render failures by value of the knob, each arm's margin, the finding, and the level if it is not 0.05."""
    falling = any(easier.value > harder.value for arm in stress.arms for easier, harder in pairwise(arm.points))
    values = sorted({point.value for arm in stress.arms for point in arm.points}, reverse=falling)
    columns = ("arm", *(f"{value:g}" for value in values), "p")
    table = plain_table(f"Failures by {stress.knob}", columns, "half of the trials fail at")
    for arm in stress.arms:
        counts = {point.value: f"{point.failed}/{point.n}" for point in arm.points}
        p = "" if arm.p is None else f"{arm.p:.2g}"
        table.add_row(arm.name, *(counts.get(value, "-") for value in values), p, margin_text(arm))
    outcomes = sum((Counter(point.outcomes) for arm in stress.arms for point in arm.points), Counter[str]())
    left_out = ", ".join(f"{n} {each}" for each, n in outcomes.items() if each in (*EXCLUDED, Outcome.RUNNING))
    parts: list[RenderableType] = [table, Text()]
    if left_out:
        parts += [Text(f"no training outcome: {left_out}"), Text()]
    look = [Text(level)] if verdict and (level := look_text(verdict)) else []
    return Group(*parts, Text(stress.finding, "bold"), *look)


def with_stress(case: "Case") -> "Case":
    """Replace a stress study's verdict, whose arms differ in two settings, by its result along the knob.

    The result is tested at the verdict's level, which is stricter at a later look. A next step about trials that still
    run or broke stays. Other cases are returned unchanged.
    """
    study = case.studies["a"]
    if getattr(study, "knob", None) is None or len(case.stages) > 1:
        return case
    stress = stress_of(case.stages[0], study, case.verdict.rules.level)
    step, command = case.verdict.next, case.command
    if step.kind not in (NextKind.WAIT, NextKind.RERUN):
        step, command = NextStep(NextKind.ELSEWHERE, _next_text(stress)), ""
    tolerant = tuple(arm.name for arm in stress.better)
    verdict = replace(case.verdict, reason=stress.finding, next=step, tolerant=tolerant)
    return replace(case, verdict=verdict, stress=stress, command=command)


def _next_text(stress: Stress) -> str:
    if stress.better:
        return "run the arm that tolerates most at a usual setting, to see its loss"
    margins = [arm.margin for arm in stress.arms if arm.margin is not None]
    if margins and all(margin.beyond for margin in margins):
        return f"try harder values of {stress.knob}: no arm fails in half of its trials"
    if all(point.failed == point.n for arm in stress.arms for point in arm.points):
        return f"try easier values of {stress.knob}: every trial failed"
    return f"run more seeds or another arm: none is shown to tolerate more than {stress.arms[0].name}"


def stress_of(stage: Stage, study: StudySpec, level: float | None = None) -> Stress:
    """Judge how far each arm of a stress study withstands its knob, at the study's alpha unless ``level`` is given."""
    assert study.knob is not None
    control = next(arm for arm, names in study.stressed.items() if study.control in names)
    return compare_stress(stage, study.stressed, study.knob, control, study.alpha if level is None else level)
