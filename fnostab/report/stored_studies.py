"""Judge the studies of a store, and record the verdict there."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from fnostab.decision import Stage
from fnostab.decision.commands import Place, Source
from fnostab.decision.oversights import (
    all_failed_alike,
    arms_without_metric,
    lacks_metric,
    learning_not_judged,
    rules_judged_in_part,
)
from fnostab.decision.words import and_list
from fnostab.errors import DecisionError
from fnostab.record.ending import ENDS_EARLY
from fnostab.record.missing_metric import metric_not_recorded
from fnostab.record.outcomes import Outcome
from fnostab.record.plurals import counted
from fnostab.record.trial import ASK, StudySpec
from fnostab.report.case import Case
from fnostab.report.judging import make_case, stage_title
from fnostab.report.named_studies import StoredStudies
from fnostab.report.verdict import to_json, to_markdown
from fnostab.show.next_commands import run_words
from fnostab.tracking import (
    Store,
    find_experiment,
    log_verdict,
    looks_before,
    newest_study,
    recorded_metrics,
    trial_rows,
)
from fnostab.tracking.read.studies import StudyRecord
from fnostab.tracking.store.errors import masked

MOST_RUNS = 10  # runs whose recorded metrics are looked up


@dataclass(frozen=True)
class Judged:
    """A recorded verdict, with experiment ids and run ids of the studies by stage, and the verdict's own run id."""

    case: Case
    experiment_ids: dict[str, str]
    study_runs: dict[str, str]
    verdict_run: str


@dataclass(frozen=True)
class Stages:
    """Studies in a store with their trials, by stage; ``earlier`` has the numbers of seeds of the looks before."""

    experiment_ids: dict[str, str]
    records: dict[str, StudyRecord]
    trials: dict[str, Stage]
    earlier: tuple[int, ...] = ()

    @property
    def look(self) -> int:
        """Number of this look at the studies, from 1."""
        return 1 + len(self.earlier)

    @property
    def seeds(self) -> int:
        """Number of trials of the arm with the most trials in Stage A."""
        stage = self.trials["a"]
        return max((len(stage.arm(arm)) for arm in stage.arms), default=0)


def read_stages(store: Store, stored: StoredStudies) -> Stages:
    """Read studies and their trials from a store.

    Raises:
        TrackingError: an experiment or study is missing, or the store does not answer.
    """
    places = stored.places
    ids = {stage: find_experiment(store, name) for stage, (name, _) in places.items()}
    records = {stage: newest_study(store, ids[stage], run) for stage, (_, run) in places.items()}
    trials = {stage: stage_of(stage, store, ids[stage], record) for stage, record in records.items()}
    found = Stages(ids, records, trials)
    return replace(found, earlier=looks_before(store, ids["a"], records["a"].run_id, seeds=found.seeds))


def judge_and_record(store: Store, stored: StoredStudies) -> Judged:
    """Judge studies of a store, and record the verdict there.

    Raises:
        FnostabError: an experiment, study or control arm is missing, or the store does not answer.
    """
    return record_verdict(store, *judge(store, stored))


def judge(store: Store, stored: StoredStudies) -> tuple[Case, Stages]:
    """Judge studies of a store without recording anything; return the case, and the trials that it rests on.

    Raises:
        FnostabError: an experiment, study or control arm is missing, or the store does not answer.
    """
    found, wanted = read_stages(store, stored), stored.places
    studies = {stage: record.spec for stage, record in found.records.items()}
    lines = [judged_line(s, record, found.trials[s], wanted[s][0]) for s, record in found.records.items()]
    lines += [line for s, record in found.records.items() for line in oversights(store, record.spec, found.trials[s])]
    lines += [line for stage in found.trials.values() for line in _reasons(stage)]
    lines += [line] if (line := _unplanned(found)) else []
    try:
        case = make_case(found.trials, studies, source=_source_of(studies, stored), judged=lines, look=found.look)
    except DecisionError as error:
        for stage, study in studies.items():
            if study.task != ASK and not found.trials[stage].arm(study.control):
                again = shlex.join(["fnostab", *run_words(study, arms=[study.control])])
                raise DecisionError(f"{error}; `{again}` trains it") from None
        raise
    return case, found


def _unplanned(found: Stages) -> str:
    """Describe looks beside those that were planned, for which the alpha of a look does not allow; empty if none."""
    planned = found.records["a"].spec.looks
    unplanned = [seeds for seeds in (*found.earlier, found.seeds) if seeds not in planned]
    if not (planned and unplanned):
        return ""
    what = f"judged on {and_list([str(seeds) for seeds in unplanned])} seeds beside the planned looks"
    return f"{what}: the error over all looks can exceed that of the plan"


def record_verdict(store: Store, case: Case, found: Stages) -> Judged:
    """Write the verdict of `judge` as a run of MLflow.

    Raises:
        TrackingError: the store does not answer, or can't be written.
    """
    study_runs = {stage: record.run_id for stage, record in found.records.items()}
    payload = {**to_json(case), "study_runs": study_runs}
    if case.verdict.is_look:
        payload["seeds"] = found.seeds
    verdict_run = log_verdict(
        store,
        found.experiment_ids["a"],
        list(study_runs.values()),
        case.verdict.headline,
        payload,
        to_markdown(case),
        outcomes={run_id: found.trials[stage].outcomes for stage, run_id in study_runs.items()},
    )
    return Judged(case, found.experiment_ids, study_runs, verdict_run)


def stage_of(name: str, store: Store, experiment_id: str, record: StudyRecord) -> Stage:
    """Read the trials of a study from a store.

    Raises:
        TrackingError: the store does not answer.
    """
    rows, asked = trial_rows(store, experiment_id, record), record.spec.seeds
    there = {(row.arm, row.seed) for row in rows}
    missing = {arm: tuple(seed for seed in seeds if (arm, seed) not in there) for arm, seeds in asked.items()}
    not_asked = tuple(arm for arm in record.spec.arms if arm not in asked) if asked else ()
    return Stage(name, tuple(rows), missing if asked else None, record.spec.same_settings, not_asked)


def oversights(store: Store, study: StudySpec, stage: Stage) -> list[str]:
    """List what is probably wrong with a study as a whole, a line each.

    Raises:
        TrackingError: the store does not answer.
    """
    lines, title = [], stage_title(stage.name, study)
    if lacks_metric(stage.trials):
        runs = [trial.run_id for trial in stage.trials if trial.counts and trial.run_id]
        recorded = recorded_metrics(store, runs[:MOST_RUNS])
        if study.metric.name not in recorded:
            lines.append(metric_not_recorded(study.metric.name, recorded))
    if line := arms_without_metric(study.metric.name, stage.trials):
        lines.append(line)
    lines += rules_judged_in_part(stage.trials)
    lines += filter(None, (learning_not_judged(stage.trials), all_failed_alike(stage.trials, study)))
    return [title + line for line in lines]


def _reasons(stage: Stage) -> list[str]:
    """Write a line on trials that ended as ``infra_error``, and one on successes that look wrong."""
    broken = [trial for trial in stage.trials if trial.outcome is Outcome.INFRA_ERROR and trial.run_id]
    odd = [trial for trial in stage.trials if trial.outcome is Outcome.CONVERGED and trial.reason]
    odd = [trial for trial in odd if not (trial.reason or "").startswith(ENDS_EARLY)]  # a line for each arm says so
    return [
        f"{len(trials)} of {counted(len(stage.trials), 'trial')} {what}, such as {trials[0].arm}-{trials[0].seed}: "
        f"{trials[0].reason or 'no reason is recorded'}"
        for what, trials in (("ended without a result", broken), ("converged, but their records look wrong", odd))
        if trials
    ]


def _source_of(studies: Mapping[str, Any], stored: StoredStudies) -> Source:
    places, wanted = {}, stored.places
    for stage, study in studies.items():
        given = [f"{name}={json.dumps(value)}" for name, value in study.overrides.items()]
        if study.task == ASK:  # no command runs its trials
            places[stage] = Place(None, wanted[stage][0])
            continue
        options = (*(("--profile", study.profile) if study.profile else ()), *(w for g in given for w in ("--set", g)))
        places[stage] = Place(study.asked_as or study.name, wanted[stage][0], options)
    return Source(places, studies["a"].follow_up, tracking_uri=masked(stored.tracking_uri or ""))


def judged_line(stage: str, record: StudyRecord, trials: Stage, experiment: str) -> str:
    """Say which study is judged, and what else its experiment holds."""
    started = datetime.fromtimestamp(record.start_ms / 1000).astimezone()
    n, option = len(record.others), "--deep-study-run" if stage == "b" else "--study-run"
    more = (
        f"; {counted(n, 'other study', 'other studies')} in this experiment: {option} {record.others[0]}" if n else ""
    )
    more += ", ..." if n > 1 else ""
    return (
        f"{stage_title(stage, record.spec)}{experiment}, study {record.spec.name} of {started:%Y-%m-%d %H:%M}, "
        f"{counted(len(trials.trials), 'trial')}, run {record.run_id}{more}"
    )
