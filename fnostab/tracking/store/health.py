"""Health of a store: version, clock, whether it can be written."""

import os
import time
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import mlflow
import sqlalchemy
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from fnostab.errors import TrackingError
from fnostab.tracking.store.database import connected
from fnostab.tracking.store.store import DEFAULT_URI, Store, reported

TIMEOUT_S = 20
SCRATCH_RUN = "fnostab doctor"


def default_database(uri: str | None) -> Path | None:
    """Path of the default database if no store is named and it does not exist yet; None otherwise."""
    path = Path(DEFAULT_URI.removeprefix("sqlite:///")).absolute()
    told = uri or os.environ.get("MLFLOW_TRACKING_URI")
    return None if told or path.exists() else path


def served_version(store: Store) -> str:
    """MLflow version that serves the UI: the server's, or this installation's.

    Raises:
        TrackingError: the server does not answer.
    """
    if not store.uri.startswith("http"):
        return str(mlflow.__version__)
    answer = _ask(store)
    return str(answer.text.strip()) if answer.ok else f"(unknown: HTTP {answer.status_code})"


def clock_offset_s(store: Store) -> float | None:
    """Seconds by which the store's clock is ahead of this machine's, accurate to about 1 s; None if unknown.

    0 if it lies between the question and the answer, however long that took.

    Raises:
        TrackingError: the store does not answer, or a server sends no Date header.
    """
    if store.uri.startswith("sqlite"):
        return None
    before = time.time()
    if store.uri.startswith("http"):
        date = _ask(store).headers.get("Date")
        if date is None:
            raise TrackingError(f"the server at {store.address} sends no Date header: let its proxy pass it on")
        there = parsedate_to_datetime(date).timestamp() + 0.5  # the header is truncated to whole seconds
    else:
        with connected(store.uri) as connection:
            now: datetime = connection.execute(sqlalchemy.select(sqlalchemy.func.current_timestamp())).scalar_one()
        if now.tzinfo is None:  # MySQL gives no time zone
            return None
        there = now.timestamp()
    return float(there - min(max(there, before), time.time()))


def try_writing(store: Store) -> None:
    """Make a scratch run and delete it again; it stays in MLflow's trash until `mlflow gc`.

    Raises:
        TrackingError: the store refuses it or does not answer.
    """
    with reported(store):
        oldest = store.client.search_experiments(max_results=1, order_by=["creation_time ASC"])  # MLflow's Default
        if not oldest:
            raise TrackingError(f"{store.address} has no experiment: `mlflow experiments create -n Default`")
        run = store.client.create_run(oldest[0].experiment_id, run_name=SCRATCH_RUN)
        store.client.delete_run(run.info.run_id)


def _ask(store: Store) -> Any:
    with reported(store):
        return http_request(get_default_host_creds(store.uri), "/version", "GET", timeout=TIMEOUT_S, max_retries=0)
