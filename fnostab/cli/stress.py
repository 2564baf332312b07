"""Stress studies in `fnostab decide`: how far each arm withstands the setting that is raised."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fnostab.decision import Stage, Stress
    from fnostab.record.trial import StudySpec
    from fnostab.report.verdict import Case

__all__ = ["stress_of", "with_stress"]


def with_stress(case: Case) -> Case:
    """Put a stress study's result in the place of the verdict, whose arms would differ in two settings."""
    from fnostab.decision import NextKind, NextStep

    study = case.studies.get("a")
    if study is None or study.knob is None or len(case.stages) > 1:
        return case
    stress = stress_of(case.stages[0], study)
    step = NextStep(NextKind.ELSEWHERE, "run the arm that tolerates most at a usual setting, to see its loss")
    return replace(case, verdict=replace(case.verdict, reason=stress.finding, next=step), stress=stress, command="")


def stress_of(stage: Stage, study: StudySpec) -> Stress:
    """Judge how far each arm of a stress study withstands its knob."""
    from fnostab.decision import compare_stress

    assert study.knob is not None
    control = next(arm for arm, names in study.stressed.items() if study.control in names)
    return compare_stress(stage, study.stressed, study.knob, control, study.alpha)
