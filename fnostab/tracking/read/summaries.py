"""Read only the tags and last metrics of a study's trials.

MLflow's `search_runs` makes an object of every param, tag and metric of every run: for 10,000 trials a million
objects, 40 s and 400 MB. A database is therefore queried once, for the few values that a table needs, through MLflow's
own table classes. A server returns whole runs only; several pages are requested at once.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import sqlalchemy
from mlflow.entities import LifecycleStage
from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlParam, SqlRun, SqlTag
from sqlalchemy.orm import aliased

from fnostab.record import names
from fnostab.record.outcomes import Outcome
from fnostab.record.progress import TrialState
from fnostab.tracking.store.database import connected
from fnostab.tracking.store.paging import every, of_kind
from fnostab.tracking.store.store import Store

SHORT_PAGE = 250  # runs, in parallel requests: a busy server may not send a longer page in time
FEW = 100  # runs in the first request, which are all runs of most studies
AT_ONCE = 4  # parallel requests: `fnostab serve` and MLflow's own server have as many processes
PLACE = ("run_id", "status", "experiment_id", "start_time", "run_name")
TABLES: dict[str, Any] = {"params": SqlParam, "tags": SqlTag, "metrics": SqlLatestMetric}
LAST_DIGITS = "0123456789abcdef"  # of run IDs, which are random: sixteen equal shares


class Summary(NamedTuple):
    """Summary of a trial's run: its status and name, and the requested tags and metrics that it has."""

    run_id: str
    status: str
    name: str
    tags: dict[str, str]
    metrics: dict[str, float]


def read_summaries(
    store: Store, experiment: str, study_hash: str, *, tags: Sequence[str], metrics: Sequence[str]
) -> Iterator[Summary]:
    """Yield a summary of each trial of a study, unordered, with the requested tags and metrics that it has.

    NaN metrics are left out. At most 50 names can be requested in all: databases join about 60 tables.
    """
    tag_names = {name: f"tags.{name}" for name in tags}
    metric_names = {name: f"metrics.{name}" for name in metrics}
    of_study = {names.KIND: names.KIND_TRIAL, names.STUDY_HASH: study_hash}
    for place, has in run_values(store, [experiment], [*tag_names.values(), *metric_names.values()], of_study):
        run_id, status, _, _, run_name = place
        numbers = {name: has[key] for name, key in metric_names.items() if key in has and has[key] == has[key]}
        texts = {name: has[key] for name, key in tag_names.items() if key in has}
        yield Summary(run_id, status, run_name or "", texts, numbers)


def run_values(
    store: Store, experiments: Sequence[str], wanted: Sequence[str], tags: Mapping[str, str]
) -> Iterator[tuple[Sequence[Any], dict[str, Any]]]:
    """Read the ``wanted`` values of the runs that have all the ``tags``, in experiments given by ID, unordered.

    A database is queried once, for these values only; a server returns whole runs. Names are ``params.x``, ``tags.x``
    and ``metrics.x``, at most 50: databases join about 60 tables.

    Yields:
        The values of `PLACE`, and by name the wanted values that the run has; a metric may be NaN.
    """
    split = [(name, *name.split(".", 1)) for name in wanted]
    if store.uri.startswith("http"):

        def take(run: Any) -> tuple[Sequence[Any], dict[str, Any]]:  # one by one: whole runs are large
            found = ((name, getattr(run.data, group).get(key)) for name, group, key in split)
            return [getattr(run.info, name) for name in PLACE], {n: value for n, value in found if value is not None}

        which = " AND ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        yield from search_in_shares(store, experiments, which, take)
        return
    columns_of_run = SqlRun.run_uuid, SqlRun.status, SqlRun.experiment_id, SqlRun.start_time, SqlRun.name
    query = sqlalchemy.select(*columns_of_run).where(
        SqlRun.experiment_id.in_([int(each) for each in experiments]), SqlRun.lifecycle_stage == LifecycleStage.ACTIVE
    )
    for key, value in tags.items():
        tag = aliased(SqlTag)
        query = query.join(tag, SqlRun.run_uuid == tag.run_uuid).where(tag.key == key, tag.value == value)
    for _, group, key in split:  # a column each: reading one row per run is ten times as fast as one row per value
        of: Any = aliased(TABLES[group])
        query = query.outerjoin(of, (of.run_uuid == SqlRun.run_uuid) & (of.key == key)).add_columns(of.value)
        query = query.add_columns(of.is_nan if group == "metrics" else sqlalchemy.null())
    n = len(PLACE)
    with connected(store.uri) as connection:
        for row in connection.execute(query):
            columns = zip(wanted, row[n::2], row[n + 1 :: 2], strict=True)
            yield row[:n], {name: math.nan if is_nan else value for name, value, is_nan in columns if value is not None}


def trial_state(run_id: str, tags: Mapping[str, str], metrics: Mapping[str, float], *, at_work: bool) -> TrialState:
    """State of a trial, from the tags and last metrics of its run; ``at_work`` says whether the run has not ended."""

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
    """Yield the results of ``take`` for the runs of a study's trials, unordered.

    Runs that were set aside are not included. ``take`` may be called in several threads.
    """
    return search_in_shares(store, [experiment], of_kind(names.KIND_TRIAL, study_hash), take)


def search_in_shares(store: Store, experiments: Sequence[str], which: str, take: Callable[[Any], Any]) -> Iterator[Any]:
    """Yield the results of ``take`` for the runs that the filter ``which`` finds in experiments given by ID, unordered.

    A server is asked for several pages at once, each of runs whose IDs end with the same digit. ``take`` may be called
    in several threads.
    """
    first = store.client.search_runs(list(experiments), which, max_results=FEW)
    if not first.token:
        yield from map(take, first)
        return

    def share(digit: str) -> list[Any]:
        ends_so = " AND ".join(filter(None, (which, f"attributes.run_id LIKE '%{digit}'")))
        return [take(run) for run in every(store.client.search_runs, list(experiments), ends_so, page=SHORT_PAGE)]

    with ThreadPoolExecutor(AT_ONCE if store.uri.startswith("http") else 1) as pool:
        for taken in pool.map(share, LAST_DIGITS):
            yield from taken
