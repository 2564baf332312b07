"""Read only the tags and last metrics of a study's trials.

MLflow's `search_runs` makes an object of every param, tag and metric of every run: at 10,000 trials a million
objects, 40 s and 400 MB. A database is therefore asked for the few values that a table needs, in one query and
through the tables that MLflow itself maps. A server can only be asked for whole runs; it is asked for several
pages at once.
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

__all__ = [
    "AT_ONCE",
    "FEW",
    "Summary",
    "read_summaries",
    "run_values",
    "search_trials",
    "trial_state",
]

SHORT_PAGE = 250  # side by side: on a busy server a longer one outlasts the time that a client waits
FEW = 100  # runs that are asked for at first: of most studies these are all
AT_ONCE = 4  # requests to a server: `fnostab serve` and MLflow's own have as many processes
PLACE = ("run_id", "status", "experiment_id", "start_time", "run_name")
TABLES: dict[str, Any] = {"params": SqlParam, "tags": SqlTag, "metrics": SqlLatestMetric}
LAST_DIGITS = "0123456789abcdef"  # of run ids, which are random: sixteen equal shares


class Summary(NamedTuple):
    """A trial as its run tells it: MLflow's status and name, and those of the wanted tags and metrics that it has."""

    run_id: str
    status: str
    name: str
    tags: dict[str, str]
    metrics: dict[str, float]


def read_summaries(
    store: Store, experiment: str, study_hash: str, *, tags: Sequence[str], metrics: Sequence[str]
) -> Iterator[Summary]:
    """Trials of a study, in no order, each with the requested tags and metrics that it has.

    Metrics that are not a number are left out. At most 50 names in all: databases join about 60 tables.
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
    """Runs of experiments, given by id, that have all the ``tags``, with those of the wanted values that they have.

    In no order. A database is asked for these values alone in one query; a server gives whole runs. Names are
    ``params.x``, ``tags.x`` and ``metrics.x``, at most 50: databases join about 60 tables.

    Yields:
        The values of `PLACE`, and those of the names; a metric may be NaN.
    """
    split = [(name, *name.split(".", 1)) for name in wanted]
    if store.uri.startswith("http"):

        def take(run: Any) -> tuple[Sequence[Any], dict[str, Any]]:  # at once: whole runs are large
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
    for _, group, key in split:  # a column each: one row of a run is read ten times as fast as one of each value
        of: Any = aliased(TABLES[group])
        query = query.outerjoin(of, (of.run_uuid == SqlRun.run_uuid) & (of.key == key)).add_columns(of.value)
        query = query.add_columns(of.is_nan if group == "metrics" else sqlalchemy.null())
    n = len(PLACE)
    with connected(store.uri) as connection:
        for row in connection.execute(query):
            columns = zip(wanted, row[n::2], row[n + 1 :: 2], strict=True)
            yield row[:n], {name: math.nan if is_nan else value for name, value, is_nan in columns if value is not None}


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
    """Apply ``take`` to MLflow's runs of a study's trials; the results, in no order.

    What was set aside is not among them. ``take`` may be called in several threads.
    """
    return search_in_shares(store, [experiment], of_kind(names.KIND_TRIAL, study_hash), take)


def search_in_shares(
    store: Store, experiments: Sequence[str], which: str = "", take: Callable[[Any], Any] = lambda run: run
) -> Iterator[Any]:
    """Apply ``take`` to the runs that the filter ``which`` finds in experiments, given by id; the results, in no order.

    Of a server several pages are asked for at once, each of the runs whose ids end alike. ``take`` may be called in
    several threads.
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
