"""Runs that others recorded: read as they are, nothing of them is written."""

import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy
from mlflow.entities import LifecycleStage
from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlParam, SqlRun, SqlTag
from sqlalchemy.orm import aliased

from fnostab.tracking.read.studies import find_experiment
from fnostab.tracking.read.summaries import FEW, search_in_shares
from fnostab.tracking.store.database import connected
from fnostab.tracking.store.store import Store, reported

__all__ = ["foreign_names", "foreign_runs"]

Record = dict[str, Any]
TABLES: dict[str, Any] = {"params": SqlParam, "tags": SqlTag, "metrics": SqlLatestMetric}
LARGEST = sys.float_info.max  # in place of infinity, which MLflow's databases do not hold
PLACE = ("run_id", "status", "experiment_id", "start_time")


def foreign_runs(store: Store, experiments: Sequence[str], wanted: Sequence[str]) -> list[Record]:
    """Runs of experiments as flat records, the oldest first: values by ``params.x``, ``tags.x`` or ``metrics.x``.

    Beside them stand `PLACE`. A metric may be NaN or infinite. A database is asked for the wanted values alone, in one
    query; a server gives whole runs only, and is asked for several pages at once.

    Args:
        store: where they are.
        experiments: names.
        wanted: names that are given where a run has them.

    Raises:
        TrackingError: there is no such experiment, or the store does not answer.
    """
    ids = [find_experiment(store, name) for name in experiments]
    names = [name for name in wanted if name.partition(".")[0] in TABLES]
    with reported(store):
        if store.uri.startswith("http"):
            found = list(search_in_shares(store, ids, take=lambda run: _record(run, names)))
        else:
            found = list(_in_database(store, ids, names))
    return sorted(found, key=lambda record: (record["start_time"] or 0, record["run_id"]))


def foreign_names(store: Store, experiments: Sequence[str]) -> list[str]:
    """Names of the values that the newest runs of experiments have.

    Raises:
        TrackingError: as `foreign_runs` does.
    """
    ids = [find_experiment(store, name) for name in experiments]
    with reported(store):
        runs = store.client.search_runs(ids, max_results=FEW)
    return sorted({f"{group}.{key}" for run in runs for group in TABLES for key in getattr(run.data, group)})


def _record(run: Any, wanted: Sequence[str]) -> Record:
    record: Record = {name: getattr(run.info, name) for name in PLACE}
    for name in wanted:
        group, _, key = name.partition(".")
        if (value := getattr(run.data, group).get(key)) is not None:
            record[name] = _unbounded(value) if group == "metrics" else value
    return record


def _in_database(store: Store, experiments: Sequence[str], wanted: Sequence[str]) -> Iterator[Record]:
    query = sqlalchemy.select(SqlRun.run_uuid, SqlRun.status, SqlRun.experiment_id, SqlRun.start_time).where(
        SqlRun.experiment_id.in_([int(each) for each in experiments]), SqlRun.lifecycle_stage == LifecycleStage.ACTIVE
    )
    for name in wanted:  # a column each, as in `summaries`, and one more of metrics, whose NaN stands for itself
        group, _, key = name.partition(".")
        of: Any = aliased(TABLES[group])
        query = query.outerjoin(of, (of.run_uuid == SqlRun.run_uuid) & (of.key == key)).add_columns(of.value)
        query = query.add_columns(of.is_nan if group == "metrics" else sqlalchemy.null())
    with connected(store.uri) as connection:
        for row in connection.execute(query):
            record: Record = dict(zip(PLACE, row, strict=False)) | {"experiment_id": str(row[2])}
            values = row[len(PLACE) :]
            for name, value, is_nan in zip(wanted, values[::2], values[1::2], strict=True):
                if value is not None:
                    record[name] = value if is_nan is None else math.nan if is_nan else _unbounded(value)
            yield record


def _unbounded(value: float) -> float:
    return math.copysign(math.inf, value) if abs(value) >= LARGEST else value
