"""What a report takes from single runs, histories and artifacts, and where its files go.

A verdict needs neither: it is made from tags and latest metrics (`fnostab.tracking.reader`).
"""

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

from fnostab.tracking.store import Store, reported

__all__ = ["LOCAL_UI", "latest_metrics", "log_files", "metric_history", "read_artifact", "run_page"]

LOCAL_UI = "http://127.0.0.1:5000"  # where `fnostab ui` shows a database
_USER = re.compile(r"//[^/@]*@")


def latest_metrics(store: Store, run_id: str) -> dict[str, float]:
    """The last value of each of a run's metrics.

    Raises:
        TrackingError: the store does not answer.
    """
    with reported(store):
        return dict(store.client.get_run(run_id).data.metrics)


def metric_history(store: Store, run_id: str, name: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Every recorded point of a run's metric: steps, rising, and values, both (n,); n is 0 if it has none.

    Raises:
        TrackingError: the store does not answer.
    """
    with reported(store):
        points = {m.step: m.value for m in store.client.get_metric_history(run_id, name)}
    steps = sorted(points)
    return np.array(steps, dtype=np.int64), np.array([points[step] for step in steps], dtype=np.float64)


def read_artifact(store: Store, run_id: str, path: str) -> bytes | None:
    """Content of an artifact; None if the run has none of that name.

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
            return None  # it was listed, and is gone


def run_page(store: Store, experiment: str, run_id: str) -> str:
    """Address of a run's page: on the server, or as `fnostab ui` shows it if the store is a database."""
    base = _USER.sub("//", store.uri) if store.uri.startswith("http") else LOCAL_UI
    return f"{base}/#/experiments/{experiment}/runs/{run_id}"


def log_files(store: Store, run_id: str, files: Iterable[Path], root: Path, artifact_path: str) -> None:
    """Copy files below ``root`` to the artifacts of a run, in the same tree under ``artifact_path``.

    Raises:
        TrackingError: the store does not take them.
    """
    with reported(store):
        for path in files:
            folder = PurePosixPath(artifact_path, path.relative_to(root).parent.as_posix())
            store.client.log_artifact(run_id, str(path), str(folder))
