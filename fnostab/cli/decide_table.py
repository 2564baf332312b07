"""``fnostab decide --table FILE.csv``: an answer without MLflow."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fnostab.decision import Stage
    from fnostab.report.verdict import Case

__all__ = ["case_of_table"]

CONTROL, ARCHITECTURE, CLIPPING = "control", "arch_fix", "opt_fix"  # of a table that does not say
DEFAULT_STUDIES = {"a": "stage_a", "b": "stage_b"}  # whose arms these are


def case_of_table(path: Path, study_name: str | None = None) -> Case:
    """Judge a table by the study named, else by its own columns, else by arms called control, arch_fix and opt_fix.

    Raises:
        FnostabError: the table or the study can't be read, or control has no trial.
    """
    from fnostab.decision import Stage
    from fnostab.decision.commands import Place, Source
    from fnostab.record.table import read_table
    from fnostab.report.judging import make_case
    from fnostab.report.stress import with_stress
    from fnostab.report.sweep import with_along

    table = read_table(path)
    stages = {
        name: Stage(name, tuple(rows), table.missing.get(name), table.same_settings.get(name, {}))
        for name, rows in sorted(table.stages.items())
    }
    study: Any = table.study
    places = {"a": Place(study_name)} if study_name else {}
    if study_name is not None:
        from fnostab.study.study import read_study_file

        study = read_study_file(study_name).with_defaults()
    elif study is None:
        study = _default_study(stages)
        places = {stage: Place(name) for stage, name in DEFAULT_STUDIES.items()} if study.roles else {}
    again = shlex.join(["fnostab", "decide", "--table", str(path)])
    source = Source(places, getattr(study, "follow_up", None), again)
    n = sum(len(stage.trials) for stage in stages.values())
    of = f" of {study.name}" if getattr(study, "name", "") else ""
    by = "" if study_name or table.study else f"; compared with {study.control}, as the table names no study"
    case = make_case(stages, {"a": study}, source=source, judged=[f"{path}: {n} trials{of}{by}"])
    return case if study_name is not None else with_along(with_stress(case))


def _default_study(stages: Mapping[str, Stage]) -> Any:
    from fnostab.record.table import TableStudy

    arms = {arm for stage in stages.values() for arm in stage.arms}
    parts = {"architecture": ARCHITECTURE, "clipping": CLIPPING}
    positive = all(t.loss is None or t.loss > 0 for stage in stages.values() for t in stage.trials if t.counts)
    return TableStudy(
        control=CONTROL,
        roles={role: arm for role, arm in parts.items() if arm in arms},
        margin=0.1 if positive else None,  # a share of what is above 0; the units of others are not known
        follow_up=DEFAULT_STUDIES["b"],
    )
