"""Judge the trials of a store or a table; `decide`, `report`, `export` and chains of studies call this."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fnostab.cli.stress import with_stress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fnostab.decision import Stage
    from fnostab.decision.commands import Source
    from fnostab.report.verdict import Case
    from fnostab.tracking import Store
    from fnostab.tracking.read.studies import StudyRecord

__all__ = ["Judged", "judge", "judge_and_record", "stage_of", "stage_title"]


@dataclass(frozen=True)
class Judged:
    """A verdict that is recorded: experiment ids and study runs by stage, and the verdict's own run."""

    case: Case
    experiment_ids: dict[str, str]
    study_runs: dict[str, str]
    verdict_run: str


def judge_and_record(
    store: Store,
    experiment: str,
    *,
    deep_experiment: str | None = None,
    study_run: str | None = None,
    deep_study_run: str | None = None,
) -> Judged:
    """Judge and record; see `fnostab.cli.decide.command` for the arguments.

    Raises:
        FnostabError: an experiment, study or control arm is missing, or the store does not answer.
    """
    from fnostab.report.setting_values import with_along
    from fnostab.report.verdict import headline, to_json, to_markdown
    from fnostab.tracking import find_experiment, log_verdict, looks_before, newest_study

    wanted = {"a": (experiment, study_run)}
    if deep_experiment:
        wanted["b"] = (deep_experiment, deep_study_run)
    experiment_ids = {stage: find_experiment(store, name) for stage, (name, _) in wanted.items()}
    records = {stage: newest_study(store, experiment_ids[stage], run) for stage, (_, run) in wanted.items()}
    stages = {s: stage_of(s, store, experiment_ids[s], record) for s, record in records.items()}
    study_runs = {stage: record.run_id for stage, record in records.items()}
    look = 1 + looks_before(store, experiment_ids["a"], study_runs["a"], seeds=_seeds(stages["a"]))
    studies = {stage: record.spec for stage, record in records.items()}
    lines = [_judged_line(s, record, stages[s], wanted[s][0]) for s, record in records.items()]
    case = with_along(with_stress(judge(stages, studies, source=_source_of(studies, wanted), judged=lines, look=look)))
    payload = {**to_json(case), "study_runs": study_runs, "seeds": _seeds(stages["a"])}
    verdict_run = log_verdict(
        store,
        experiment_ids["a"],
        list(study_runs.values()),
        headline(case.verdict),
        payload,
        to_markdown(case),
        outcomes={run_id: stages[stage].outcomes for stage, run_id in study_runs.items()},
    )
    return Judged(case, experiment_ids, study_runs, verdict_run)


def stage_of(name: str, store: Store, experiment_id: str, record: StudyRecord) -> Stage:
    """The trials of a study in the store."""
    from fnostab.decision import Stage
    from fnostab.tracking import trial_rows

    rows, asked = trial_rows(store, experiment_id, record), record.spec.seeds
    there = {(row.arm, row.seed) for row in rows}
    missing = {arm: tuple(seed for seed in seeds if (arm, seed) not in there) for arm, seeds in asked.items()}
    return Stage(name, tuple(rows), missing if asked else None)


def judge(
    stages: Mapping[str, Stage],
    studies: Mapping[str, Any],
    *,
    source: Source,
    judged: list[str] | None = None,
    look: int | None = None,
) -> Case:
    """Answer and conclude.

    Args:
        stages: the trials, by name.
        studies: by stage, anything with the attributes of a `StudySpec`; that of Stage A gives roles and rules.
        source: where they are from, for the next command.
        judged: a line for each stage on what is judged.
        look: which look at the study this is; by default as it says itself.
    """
    from fnostab.decision import Roles, Rules, decide
    from fnostab.decision.commands import command_of
    from fnostab.report.verdict import Case

    study = studies["a"]
    verdict = decide(Roles.of(study), stages["a"], stages.get("b"), rules=Rules.of(study, look=look))
    command = command_of(verdict.next, source)
    gone = [
        f"{stage_title(name, study)}{arm} takes no part: none of its {len(seeds)} trials has a run"
        for name, stage in stages.items()
        for arm, seeds in stage.gone.items()
    ]
    return Case(verdict, tuple(stages.values()), studies, (*(judged or ()), *gone), command)


def _source_of(studies: Mapping[str, Any], wanted: Mapping[str, tuple[str, str | None]]) -> Source:
    from fnostab.decision.commands import Place, Source

    places = {}
    for stage, study in studies.items():
        given = [f"{name}={json.dumps(value)}" for name, value in study.overrides.items()]
        options = (*(("--profile", study.profile) if study.profile else ()), *(w for g in given for w in ("--set", g)))
        places[stage] = Place(getattr(study, "asked_as", "") or study.name, wanted[stage][0], options)
    return Source(places, studies["a"].follow_up)


def _judged_line(stage: str, record: StudyRecord, trials: Stage, experiment: str) -> str:
    started = datetime.fromtimestamp(record.start_ms / 1000).astimezone()
    others = getattr(record, "others", 0)
    more = f"; {others} other stud{'y' if others == 1 else 'ies'} in this experiment (--study-run)" if others else ""
    return (
        f"{stage_title(stage, record.spec)}{experiment}, study {record.spec.name} of {started:%Y-%m-%d %H:%M}, "
        f"{len(trials.trials)} trials, run {record.run_id}{more}"
    )


def stage_title(stage: str, study: Any) -> str:
    """As in "Stage A: "; empty of a study that has one stage."""
    return f"Stage {stage.upper()}: " if study.roles or stage != "a" else ""


def _seeds(stage: Stage) -> int:
    """Trials of the arm that has the most."""
    return max((len(stage.arm(arm)) for arm in stage.arms), default=0)
