"""What `fnostab decide` makes of a stress study: how far each arm bears the setting that it turns."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fnostab.report.verdict import Case

__all__ = ["with_stress"]


def with_stress(case: Case) -> Case:
    """The same case with what its stress study says, in place of a verdict on arms that differ in two things."""
    from fnostab.decision import compare_stress

    study = case.studies.get("a")
    if study is None or study.knob is None or len(case.stages) > 1:
        return case
    control = next(arm for arm, names in study.stressed.items() if study.control in names)
    stress = compare_stress(case.stages[0], study.stressed, study.knob, control, study.alpha)
    verdict = replace(
        case.verdict, reason=stress.finding, next_step="run what bears most at a usual setting, for its loss"
    )
    return replace(case, verdict=verdict, stress=stress)
