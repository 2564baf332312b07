"""The tags and last metrics of a study's trials, and nothing else of them.

MLflow's `search_runs` makes an object of every param, tag and metric of every run: at 10,000 trials a million
objects, 40 s and 400 MB. A database is therefore asked for the few values that a table needs, in one query and
through the tables that MLflow itself maps. A server can only be asked for whole runs; it is asked for several
pages at once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import sqlalchemy
from mlflow.entities import LifecycleStage
from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlRun, SqlTag
from sqlalchemy.orm import aliased

from fnostab.record import names
from fnostab.record.outcomes import Outcome
from fnostab.record.progress import TrialState
from fnostab.tracking.store.database import connected
from fnostab.tracking.store.store import Store

__all__ = ["AT_ONCE", "FEW", "PAGE", "Summary", "read_summaries", "search_in_shares", "search_trials", "trial_state"]

PAGE = 1000  # runs in one answer
SHORT_PAGE = 250  # side by side: on a busy server a longer one outlasts the time that a client waits
FEW = 100  # runs that are asked for at first: of most studies these are all
AT_ONCE = 4  # requests to a server: `fnostab serve` and MLflow's own have as many processes
LAST_DIGITS = "0123456789abcdef"  # of run ids, which are random: sixteen equal shares
Summary = tuple[str, dict[str, str], dict[str, float]]  # run id, tags, metrics


def read_summaries(
    store: Store, experiment: str, study_hash: str, *, tags: Sequence[str], metrics: Sequence[str]
) -> Iterator[Summary]:
    """Trials of a study, in no order, with those of the named tags and metrics that they have.

    Args:
        store: where to look.
        experiment: id.
        study_hash: of the study.
        tags: names; with those of ``metrics`` at most 50, as databases join about 60 tables.
        metrics: names; values that are not a number are left out.
    """
    if not store.uri.startswith("http"):
        return _in_database(store, experiment, study_hash, tags, metrics)

    def summary(run: Any) -> Summary:  # at once: whole runs are large
        has, last = run.data.tags, run.data.metrics
        return (
            run.info.run_id,
            {name: has[name] for name in tags if name in has},
            {name: last[name] for name in metrics if name in last and last[name] == last[name]},
        )

    return search_trials(store, experiment, study_hash, summary)


def trial_state(run_id: str, tags: Mapping[str, str], metrics: Mapping[str, float], *, at_work: bool) -> TrialState:
    """A trial as the tags and last metrics of its run tell it; ``at_work`` says whether MLflow has it as RUNNING."""

    def whole(value: str | float | None) -> int | None:
        return None if value is None else int(value)

    outcome = Outcome(tags.get(names.OUTCOME, Outcome.RUNNING))
    return TrialState(
        arm=tags[names.ARM],
        seed=int(tags[names.SEED]),
        outcome=None if at_work or outcome is Outcome.RUNNING else outcome,
        running=at_work,
        step=whole(metrics.get(names.LAST_STEP)),
        scheduled_steps=whole(tags.get(names.SCHEDULED_STEPS)),
        loss=metrics.get(names.TRAIN_LOSS),
        grad_norm=metrics.get(names.GRAD_NORM),
        spikes=whole(metrics.get(names.SPIKES)),
        failure_step=whole(tags.get(names.FAILURE_STEP)),
        reason=tags.get(names.REASON),
        owner=tags.get(names.OWNER),
        run_id=run_id,
    )


def search_trials(
    store: Store, experiment: str, study_hash: str, take: Callable[[Any], Any] = lambda run: run
) -> Iterator[Any]:
    """What ``take`` makes of MLflow's runs of the trials of a study, in no order.

    What was set aside is not among them. ``take`` may be called in several threads.
    """
    of_study = f"tags.`{names.KIND}` = '{names.KIND_TRIAL}' AND tags.`{names.STUDY_HASH}` = '{study_hash}'"
    return search_in_shares(store, [experiment], of_study, take)


def search_in_shares(
    store: Store, experiments: Sequence[str], which: str = "", take: Callable[[Any], Any] = lambda run: run
) -> Iterator[Any]:
    """What ``take`` makes of the runs of experiments, given by id, that the filter ``which`` finds, in no order.

    Of a server several pages are asked for at once, each of the runs whose ids end alike. ``take`` may be called in
    several threads.
    """
    first = store.client.search_runs(list(experiments), which, max_results=FEW)
    if not first.token:
        yield from map(take, first)
        return

    def share(digit: str) -> list[Any]:
        ends_so = " AND ".join(filter(None, (which, f"attributes.run_id LIKE '%{digit}'")))
        taken: list[Any] = []
        token = None
        while True:
            page = store.client.search_runs(list(experiments), ends_so, max_results=SHORT_PAGE, page_token=token)
            taken += map(take, page)
            token = page.token
            if not token:
                return taken

    with ThreadPoolExecutor(AT_ONCE if store.uri.startswith("http") else 1) as pool:
        for taken in pool.map(share, LAST_DIGITS):
            yield from taken


def _in_database(
    store: Store, experiment: str, study_hash: str, tags: Sequence[str], metrics: Sequence[str]
) -> Iterator[Summary]:
    kind, study = aliased(SqlTag), aliased(SqlTag)
    query = (
        sqlalchemy.select(SqlRun.run_uuid)
        .join(kind, SqlRun.run_uuid == kind.run_uuid)
        .join(study, SqlRun.run_uuid == study.run_uuid)
        .where(SqlRun.experiment_id == int(experiment), SqlRun.lifecycle_stage == LifecycleStage.ACTIVE)
        .where(kind.key == names.KIND, kind.value == names.KIND_TRIAL)
        .where(study.key == names.STUDY_HASH, study.value == study_hash)
    )
    for name in tags:  # a column each: one row of a run is read ten times as fast as one of each value
        tag = aliased(SqlTag)
        query = query.outerjoin(tag, (tag.run_uuid == SqlRun.run_uuid) & (tag.key == name)).add_columns(tag.value)
    for name in metrics:
        last: Any = aliased(SqlLatestMetric)
        of_run = (last.run_uuid == SqlRun.run_uuid) & (last.key == name) & last.is_nan.is_(False)
        query = query.outerjoin(last, of_run).add_columns(last.value)
    with connected(store.uri) as connection:
        for run_id, *values in connection.execute(query):
            found = zip((*tags, *metrics), values, strict=True)
            has = {name: value for name, value in found if value is not None}
            yield run_id, {n: has[n] for n in tags if n in has}, {n: has[n] for n in metrics if n in has}
