"""Judge a table of trials: an answer without MLflow, for `fnostab decide --table` and for Python."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fnostab.decision import Stage
from fnostab.decision.commands import Place, Source
from fnostab.decision.oversights import rules_judged_in_part
from fnostab.decision.words import and_list
from fnostab.errors import DecisionError
from fnostab.record.outcomes import Outcome
from fnostab.record.plurals import counted
from fnostab.record.settings import suggestion
from fnostab.record.table import STAGES, Table, check_arm_names
from fnostab.record.table_study import TableStudy
from fnostab.report.case import Case
from fnostab.report.judging import make_case, stage_title

CONTROL, ARCHITECTURE, CLIPPING = "control", "arch_fix", "opt_fix"  # for a table that names no study
MOST_NAMED = 5  # arms per line
DEFAULT_STUDIES = {"a": "stage_a", "b": "stage_b"}  # the built-in studies with these arms


def decide(table: Table, study: Any = None, *, asked_as: str | None = None) -> Case:
    """Judge a table, as `fnostab decide --table` does.

    Args:
        table: table from `read_table`, or made from trials; stage a is judged, with stage b if it has trials.
        study: study whose arms and rules apply: a `TableStudy`, or anything with the attributes of a `StudySpec`. None
            for the study that the table names, or else for arms called control, arch_fix and opt_fix.
        asked_as: name or file with which `fnostab run` runs more trials of ``study``; None if it is unknown.

    Returns:
        The case, with the answer for every arm and the verdict in ``case.verdict``. A notebook shows it as the first
        box of a report; elsewhere it prints as `fnostab decide` does.

    Raises:
        DecisionError: stage a, control or the arm of a role has no trial, there is a stage besides a and b, two arms
            look alike, or a trial is in the table twice.
    """
    if not isinstance(table, Table):
        raise DecisionError(f"expected a table, as from read_table or Table, got {table!r:.80}")
    if unknown := sorted(table.stages.keys() - set(STAGES)):
        raise DecisionError(f"the table has stage {unknown[0]!r}; accepted: {', '.join(STAGES)}")
    if "a" not in table.stages:
        raise DecisionError("the table has no trial of stage a")
    stages = {
        name: Stage(name, tuple(rows), table.missing.get(name), table.same_settings.get(name, {}))
        for name, rows in sorted(table.stages.items())
    }
    ran = list(dict.fromkeys(arm for stage in stages.values() for arm in stage.arms))
    strangers = [arm for arm in ran if arm not in study.arms] if getattr(study, "arms", None) else []
    places = {"a": Place(asked_as)} if asked_as and not strangers else {}
    beside = [] if study is None else list(_beside(table, study, ran, strangers))
    look = table.study.look if table.study is not None else None
    study = study or table.study
    by = ""
    if study is None:
        study = _default_study(stages)
        by = f"; compared with {study.control}, as the table names no study"
        by += "" if study.margin else "; without a margin, as a loss is not above 0"
        places = {stage: Place(name) for stage, name in DEFAULT_STUDIES.items()} if study.roles else {}
    again = ["fnostab", "decide", "--table", table.path, *(["--study", asked_as] if asked_as else [])]
    source = Source(places, getattr(study, "follow_up", None), shlex.join(again) if table.path else "")
    at = f"{table.path}: " if table.path else ""
    try:
        check_arm_names(arm for stage in stages.values() for arm in stage.arms)
        _check_roles(study, stages)
    except DecisionError as error:
        raise DecisionError(f"{at}{error}") from None
    n = sum(len(stage.trials) for stage in stages.values())
    of = f" of {study.name}" if getattr(study, "name", "") else ""
    lines = [f"{at}{counted(n, 'trial')}{of}{by}", *beside]
    lines += [
        stage_title(s, study) + line for s, stage in stages.items() for line in rules_judged_in_part(stage.trials)
    ]
    try:
        return make_case(stages, {"a": study}, source=source, judged=lines, look=look)
    except DecisionError as error:
        if by and not stages["a"].arm(CONTROL):
            raise DecisionError(f"{error}; name the control in a column study.control") from None
        raise


def _beside(table: Table, study: Any, ran: Sequence[str], strangers: Sequence[str]) -> Iterator[str]:
    """Yield a line for each respect in which a table differs from the study that was given with it."""
    if table.study is not None:
        yield "its columns study. are not used, except look, missing and same_settings: another study is given"
    lacking = [arm for arm in getattr(study, "arms", ()) if arm not in ran]
    if strangers:
        named = _named([f"{arm}{suggestion(arm, lacking)}" for arm in strangers])
        compared = "" if getattr(study, "knob", None) else ", but compared as well"
        yield f"{named} {'is no arm' if len(strangers) == 1 else 'are no arms'} of the study{compared}"
    if lacking:
        yield f"no trial of {_named(lacking)} is in the table"


def _named(arms: Sequence[str]) -> str:
    """Join the first names, and say how many more there are."""
    more = len(arms) - MOST_NAMED
    return and_list(arms if more <= 0 else [*arms[:MOST_NAMED], f"{more} more"])


def _check_roles(study: Any, stages: Mapping[str, Stage]) -> None:
    """Refuse a role of an arm that is neither in the table nor known to be missing, so probably misspelt.

    An arm of a study file may not have been run yet; it is refused only if the table has an arm of a similar name that
    the study does not have.

    Raises:
        DecisionError: a role has no such arm.
    """
    ran = list(dict.fromkeys(arm for stage in stages.values() for arm in (*stage.arms, *stage.all_missing)))
    of_table = isinstance(study, TableStudy)
    if of_table and stages["a"].known_missing is not None:
        return  # as exported: an arm of a store may not have been run yet
    strangers = ran if of_table else [arm for arm in ran if arm not in study.arms]
    for role, arm in study.roles.items():
        similar = suggestion(arm, strangers)
        if arm not in ran and (of_table or similar):
            raise DecisionError(f"{role}: no trial of the arm {arm!r}{similar}; arms: {', '.join(ran)}")


def _default_study(stages: Mapping[str, Stage]) -> Any:
    arms = {arm for stage in stages.values() for arm in stage.arms}
    parts = {"architecture": ARCHITECTURE, "clipping": CLIPPING}
    successes = [t for stage in stages.values() for t in stage.trials if t.outcome is Outcome.CONVERGED]
    positive = all(t.loss is None or t.loss > 0 for t in successes)
    return TableStudy(
        control=CONTROL,
        roles={role: arm for role, arm in parts.items() if arm in arms},
        margin=0.1 if positive else None,  # relative to losses above 0; the units of others are unknown
        follow_up=DEFAULT_STUDIES["b"],
    )
