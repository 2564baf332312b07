"""Read histories and artifacts of single runs for a report, and store the report's files.

A verdict needs neither: it is made from tags and latest metrics (`fnostab.tracking.read.studies`).
"""

import itertools
import math
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import sqlalchemy
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.dbmodels.models import SqlMetric
from numpy.typing import NDArray

from fnostab.tracking.read.summaries import AT_ONCE
from fnostab.tracking.store.database import connected
from fnostab.tracking.store.store import Store, insist_on_place_of, reported

CLASSIC = "workflowType=machine_learning"  # in an address: selects the page of runs, not that of generative AI
LOCAL_UI = "http://127.0.0.1:5000"  # where `fnostab ui` shows a database
MOST_NAMED = 500  # run IDs in one query: databases limit the number of values
History = tuple[NDArray[np.int64], NDArray[np.float64]]  # increasing steps and values, both (n,)
_USER = re.compile(r"//[^/@]*@")


def metric_histories(store: Store, run_ids: Sequence[str], name: str) -> dict[str, History]:
    """Read all points of one metric for many runs: by run ID, increasing steps and values, both (n,).

    If a step was recorded twice, the later value counts. NaN is left out.

    Raises:
        TrackingError: the store does not answer.
    """
    with reported(store):
        if not store.uri.startswith("http"):
            return {run_id: _history([]) for run_id in run_ids} | dict(_in_database(store, run_ids, name))

        def ask(run_id: str) -> list[tuple[int, float]]:
            points = store.client.get_metric_history(run_id, name)  # by time
            return sorted({m.step: m.value for m in points if not math.isnan(m.value)}.items())

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return {r: _history(points) for r, points in zip(run_ids, pool.map(ask, run_ids), strict=True)}


def _in_database(store: Store, run_ids: Sequence[str], name: str) -> Iterator[tuple[str, History]]:
    points: Any = SqlMetric
    with connected(store.uri) as connection:
        for start in range(0, len(run_ids), MOST_NAMED):
            few = run_ids[start : start + MOST_NAMED]
            query = (
                sqlalchemy.select(points.run_uuid, points.step, points.value)
                .where(points.run_uuid.in_(few), points.key == name, points.is_nan.is_(False))
                .order_by(points.run_uuid, points.step, points.timestamp, points.value)
            )
            for run_id, rows in itertools.groupby(connection.execute(query), lambda row: row[0]):
                yield run_id, _history(list({step: value for _, step, value in rows}.items()))


def _history(points: Sequence[tuple[int, float]]) -> History:
    steps, values = zip(*points, strict=True) if points else ((), ())
    return np.array(steps, dtype=np.int64), np.array(values, dtype=np.float64)


def read_artifact(store: Store, run_id: str, path: str) -> bytes | None:
    """Read an artifact; None if the run has none at ``path``.

    Raises:
        TrackingError: the store does not answer.
    """
    folder = path.rpartition("/")[0]
    with reported(store), tempfile.TemporaryDirectory() as here:
        if all(each.path != path for each in store.client.list_artifacts(run_id, folder or None)):
            return None
        try:
            return Path(store.client.download_artifacts(run_id, path, here)).read_bytes()
        except (MlflowException, FileNotFoundError) as error:
            if isinstance(error, MlflowException) and error.get_http_status_code() != 404:
                raise
            return None  # it was listed, but is gone now


def run_page(store: Store, experiment: str, run_id: str) -> str:
    """Address of a run's page: on the server, or as `fnostab ui` shows it if the store is a database."""
    return f"{ui_address(store)}/#/experiments/{experiment}/runs/{run_id}?{CLASSIC}"


def ui_address(store: Store) -> str:
    """Address of the MLflow UI, without credentials: the server's, or that of `fnostab ui` for a database."""
    return _USER.sub("//", store.uri) if store.uri.startswith("http") else LOCAL_UI


def log_files(store: Store, run_id: str, files: Iterable[Path], root: Path, artifact_path: str = "") -> None:
    """Copy files below ``root`` to the artifacts of a run, in the same tree under ``artifact_path``.

    Raises:
        TrackingError: the store refuses them or does not answer.
    """
    with reported(store):
        insist_on_place_of(store, run_id)
        for path in files:
            folder = PurePosixPath(artifact_path, path.relative_to(root).parent.as_posix())
            store.client.log_artifact(run_id, str(path), str(folder) if folder.parts else None)
