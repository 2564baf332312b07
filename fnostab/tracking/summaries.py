"""The tags and last metrics of a study's trials, and nothing else of them.

MLflow's `search_runs` makes an object of every param, tag and metric of every run: at 10,000 trials a million
objects, 40 s and 400 MB. A database is therefore asked for the few values that a table needs, through the tables
that MLflow itself maps. A server can only be asked for whole runs.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy
from mlflow.entities import LifecycleStage
from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlRun, SqlTag
from sqlalchemy.orm import aliased

from fnostab import names
from fnostab.tracking.store import Store

__all__ = ["PAGE", "Summary", "read_summaries", "search_trials"]

PAGE = 1000  # runs in one answer
Summary = tuple[str, dict[str, str], dict[str, float]]  # run id, tags, metrics


def read_summaries(
    store: Store, experiment: str, study_hash: str, *, tags: Sequence[str], metrics: Sequence[str]
) -> Iterator[Summary]:
    """Trials of a study, in no order, with those of the named tags and metrics that they have.

    Args:
        store: where to look. A server's answer holds all other tags and metrics too.
        experiment: id.
        study_hash: of the study.
        tags: names.
        metrics: names; values that are not a number are left out.
    """
    if store.uri.startswith("http"):
        for run in search_trials(store, experiment, study_hash):
            yield run.info.run_id, run.data.tags, run.data.metrics
        return
    yield from _in_database(store, experiment, study_hash, tags, metrics).values()


def search_trials(store: Store, experiment: str, study_hash: str) -> Iterator[Any]:
    """MLflow's runs of the trials of a study, in no order; what was set aside is not among them."""
    of_study = f"tags.`{names.KIND}` = '{names.KIND_TRIAL}' AND tags.`{names.STUDY_HASH}` = '{study_hash}'"
    token = None
    while True:
        page = store.client.search_runs([experiment], of_study, max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _in_database(
    store: Store, experiment: str, study_hash: str, tags: Sequence[str], metrics: Sequence[str]
) -> dict[str, Summary]:
    kind, study = aliased(SqlTag), aliased(SqlTag)
    trials = (
        sqlalchemy.select(SqlRun.run_uuid)
        .join(kind, SqlRun.run_uuid == kind.run_uuid)
        .join(study, SqlRun.run_uuid == study.run_uuid)
        .where(SqlRun.experiment_id == int(experiment), SqlRun.lifecycle_stage == LifecycleStage.ACTIVE)
        .where(kind.key == names.KIND, kind.value == names.KIND_TRIAL)
        .where(study.key == names.STUDY_HASH, study.value == study_hash)
    )
    engine = sqlalchemy.create_engine(store.uri)
    try:
        with engine.connect() as connection:
            found: dict[str, Summary] = {run_id: (run_id, {}, {}) for (run_id,) in connection.execute(trials)}
            columns = sqlalchemy.select(SqlTag.run_uuid, SqlTag.key, SqlTag.value)
            chosen = columns.where(SqlTag.run_uuid.in_(trials), SqlTag.key.in_(tags))
            for run_id, key, text in connection.execute(chosen):
                if run_id in found:  # not of a trial that was recorded meanwhile
                    found[run_id][1][key] = text
            last = SqlLatestMetric
            columns = sqlalchemy.select(last.run_uuid, last.key, last.value)
            chosen = columns.where(last.run_uuid.in_(trials), last.key.in_(metrics), last.is_nan.is_(False))
            for run_id, key, value in connection.execute(chosen):
                if run_id in found:
                    found[run_id][2][key] = value
    finally:
        engine.dispose()
    return found
