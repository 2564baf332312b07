"""Delete points of long histories from a database, and mark their runs as thinned.

MLflow can delete whole runs only, and a server no points at all. Points are therefore deleted in the database, through
MLflow's own table classes, as in `fnostab.tracking.read.summaries`. Each run is one transaction, which includes the tag
that keeps its journal from being sent again.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy
from mlflow.entities import LifecycleStage, RunStatus
from mlflow.store.tracking.dbmodels.models import SqlExperiment, SqlMetric, SqlRun, SqlTag
from numpy.typing import NDArray
from sqlalchemy.orm import aliased

from fnostab.errors import TrackingError
from fnostab.record import names
from fnostab.record.outcomes import TRAINING_OUTCOMES
from fnostab.tracking.store.database import connected
from fnostab.tracking.store.store import Store, reported

Keep = Callable[[NDArray[np.int64], NDArray[np.float64]], NDArray[np.int64]]


@dataclass(frozen=True)
class LongRun:
    """Run with long histories.

    Attributes:
        experiment: name of its experiment.
        points: number of points of each long history, by metric.
    """

    run_id: str
    experiment: str
    points: dict[str, int]


def long_runs(store: Store, before_ms: int, longer_than: int, experiment: str | None) -> list[LongRun]:
    """List runs that ended before ``before_ms`` (Unix milliseconds) with histories longer than ``longer_than`` points.

    Only trials of finished studies and runs of users' scripts count, if they have a training outcome: their journals
    do not continue. ``experiment`` is a name; None selects all.

    Raises:
        TrackingError: the store is a server, or the database does not answer.
    """
    _insist_on_database(store)
    with connected(store.uri) as connection:
        counted = (
            sqlalchemy.select(SqlMetric.key, sqlalchemy.func.count())
            .group_by(SqlMetric.key)
            .having(sqlalchemy.func.count() > longer_than)
        )
        found = []
        for run_id, name in connection.execute(_ended(before_ms, experiment)).all():
            rows = connection.execute(counted.where(SqlMetric.run_uuid == run_id)).all()
            points = {str(row[0]): int(row[1]) for row in rows}
            if points:
                found.append(LongRun(run_id, name, points))
        return found


def thin(store: Store, runs: list[LongRun], keep: Keep) -> Iterator[int]:
    """Delete points of long histories; yield the number of deleted points after each run.

    ``keep`` selects the steps that stay, from increasing steps (n,) and values (n,), which may be NaN.

    Raises:
        TrackingError: the store is a server, or the database can't be written. Runs that were yielded stay thinned.
    """
    _insist_on_database(store)
    with connected(store.uri) as connection:
        for run in runs:
            deleted = 0
            for key in run.points:
                mine = (SqlMetric.run_uuid == run.run_id, SqlMetric.key == key)
                columns = sqlalchemy.select(SqlMetric.step, SqlMetric.value, SqlMetric.is_nan)
                rows = connection.execute(columns.where(*mine).order_by(SqlMetric.step)).all()
                steps = np.array([row[0] for row in rows], dtype=np.int64)
                values = np.array([np.nan if row[2] else row[1] for row in rows])
                kept = keep(steps, values).tolist()
                deleted += connection.execute(
                    sqlalchemy.delete(SqlMetric).where(*mine, SqlMetric.step.not_in(kept))
                ).rowcount
            _tag(connection, run.run_id)
            connection.commit()
            yield deleted


def is_thinned(store: Store, experiment: str, study_hash: str) -> bool:
    """Whether at least one trial of a study was thinned.

    Raises:
        TrackingError: the store does not answer.
    """
    wanted = f"tags.`{names.STUDY_HASH}` = '{study_hash}' AND tags.`{names.THINNED}` LIKE '%'"
    with reported(store):
        return bool(store.client.search_runs([experiment], wanted, max_results=1))


def compact(store: Store) -> None:
    """Return the disk space of deleted points in a SQLite database; other databases reuse it automatically.

    Raises:
        TrackingError: another process is using the database, or the disk has no room for a copy.
    """
    if store.uri.startswith("sqlite"):
        with connected(store.uri) as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("VACUUM")


def _ended(before_ms: int, experiment: str | None) -> sqlalchemy.Select[Any]:
    """Query for the IDs of runs that may be thinned, and the names of their experiments."""
    kind, outcome, parent, study = aliased(SqlTag), aliased(SqlTag), aliased(SqlTag), aliased(SqlRun)
    wanted = (
        sqlalchemy.select(SqlRun.run_uuid, SqlExperiment.name)
        .join(SqlExperiment, SqlExperiment.experiment_id == SqlRun.experiment_id)
        .join(kind, (kind.run_uuid == SqlRun.run_uuid) & (kind.key == names.KIND))
        .join(outcome, (outcome.run_uuid == SqlRun.run_uuid) & (outcome.key == names.OUTCOME))
        .outerjoin(parent, (parent.run_uuid == SqlRun.run_uuid) & (parent.key == names.PARENT_RUN))
        .outerjoin(study, study.run_uuid == parent.value)
        .where(SqlRun.lifecycle_stage == LifecycleStage.ACTIVE)
        .where(SqlRun.status != RunStatus.to_string(RunStatus.RUNNING), SqlRun.end_time < before_ms)
        .where(outcome.value.in_([str(each) for each in TRAINING_OUTCOMES]))
        .where(
            (kind.value == names.KIND_LIVE)
            | ((kind.value == names.KIND_TRIAL) & (study.status == RunStatus.to_string(RunStatus.FINISHED)))
        )
        .order_by(SqlRun.end_time)
    )
    return wanted if experiment is None else wanted.where(SqlExperiment.name == experiment)


def _tag(connection: sqlalchemy.Connection, run_id: str) -> None:
    mine = (SqlTag.run_uuid == run_id, SqlTag.key == names.THINNED)
    connection.execute(sqlalchemy.delete(SqlTag).where(*mine))
    today = time.strftime("%Y-%m-%d")
    connection.execute(sqlalchemy.insert(SqlTag).values(run_uuid=run_id, key=names.THINNED, value=today))


def _insist_on_database(store: Store) -> None:
    if store.uri.startswith("http"):
        raise TrackingError(
            f"{store.address} is a server, which deletes no single points: on its own machine, "
            "`fnostab prune --only points --tracking-uri DATABASE` with the database that `fnostab serve` names; "
            "here, `--only journals` archives the journals"
        )
