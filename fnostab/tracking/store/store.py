"""Tracking store: an MLflow server, or a database without one."""

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import requests
import sqlalchemy
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from fnostab.errors import FnostabError, TrackingError
from fnostab.tracking.environment import settled, variables
from fnostab.tracking.store.artifact_folders import insist_on_place, new_artifact_location
from fnostab.tracking.store.database import check_database, made_by_one, notice_another_file, usable_sqlite
from fnostab.tracking.store.errors import describe, is_away, is_refusal, is_slow, masked, tracking_error

DEFAULT_URI = "sqlite:///mlflow.db"
MAX_METRICS = 999  # in one call: with the mark, 1000 entries, which is MLflow's limit
SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql")
PROBE_TIMEOUT_S = 4
IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": str(PROBE_TIMEOUT_S)}
MOST_TWINS = 10
_log = logging.getLogger(__name__)
_USER_INFO = re.compile(r"(https?://)([^/@\s:]*):([^/\s]*)@")


@dataclass(frozen=True)
class Store:
    """Open tracking store; its ``uri`` may hold a database's password, its ``address`` does not."""

    uri: str
    client: MlflowClient

    @property
    def address(self) -> str:
        """The URI with its password masked."""
        return masked(self.uri)


def open_store(uri: str | None = None) -> Store:
    """Open a tracking store; an error is raised within seconds, unless a server is running but slow.

    Args:
        uri: address of an MLflow server or database; None takes MLFLOW_TRACKING_URI, and without that
            ``sqlite:///mlflow.db`` in the working directory.

    Raises:
        SlowStoreError: a server accepts requests but did not answer within MLflow's timeouts.
        TrackingError: nothing answers there, what answers is not MLflow, or the database can't be used.
    """
    given = checked_address(uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI)
    uri, credentials = _apart(given.rstrip("/"))
    with settled(), variables(credentials), made_by_one(uri):
        try:
            client = MlflowClient(uri)
            if uri.startswith("sqlite"):
                notice_another_file(client._tracking_client.store.engine)  # MLflow has no public name for it
            _await_answer(client, given)
        except Exception as error:  # MLflow passes on errors of its database and HTTP libraries
            raise tracking_error(error, given) from error
    os.environ.update(credentials)
    return Store(uri, client)


def _await_answer(client: MlflowClient, uri: str) -> None:
    try:
        with variables(IMPATIENT):
            client.search_experiments(max_results=1)
    except MlflowException as error:
        if not is_slow(error):
            raise
        _log.warning("%s has not answered within %d s, retrying", masked(uri), PROBE_TIMEOUT_S)
        client.search_experiments(max_results=1)


def checked_address(uri: str) -> str:
    """Check the address of a store, and connect to it if it is a database; return it, with an absolute SQLite path.

    Raises:
        TrackingError: this kind of address is not supported, or the database can't be used.
    """
    scheme = uri.partition("://")[0].partition("+")[0] if "://" in uri else ""
    if scheme not in SCHEMES:
        raise TrackingError(
            f"tracking store {masked(uri)!r} is not supported; accepted: {', '.join(SCHEMES)}, as in {DEFAULT_URI}"
        )
    if scheme.startswith("http"):
        return uri
    if scheme == "sqlite":
        uri = usable_sqlite(uri)
    check_database(uri)
    return uri


def experiment_id(store: Store, name: str) -> str:
    """ID of the experiment called ``name``, which is created if there is none.

    Raises:
        TrackingError: it was deleted, or the database was moved and its artifacts would go to the old folder.
    """
    experiment = store.client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(store.client.create_experiment(name, new_artifact_location(store.uri, name)))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = store.client.get_experiment_by_name(name)  # made by another process just now
    if experiment.lifecycle_stage != "active":
        restore = f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
        raise TrackingError(f"experiment {name!r} in {store.address} was deleted: `{restore}`, or choose another name")
    insist_on_place(store.uri, experiment)
    return str(experiment.experiment_id)


def insist_on_place_of(store: Store, run_id: str) -> None:
    """Raise a `TrackingError` if the database was moved and the run's artifacts would go to the old folder."""
    if not store.uri.startswith("http"):
        experiment = store.client.get_run(run_id).info.experiment_id
        insist_on_place(store.uri, store.client.get_experiment(experiment))


def find_or_make_run(store: Store, experiment: str, which: str, make: Callable[[], object]) -> Any:
    """Find the run that matches the filter ``which`` in an experiment, or create it with ``make``.

    If a server dies after creating the run but before it answers, MLflow's client retries, and there are two. The one
    that every search finds first is kept; empty ones of the same start are deleted.
    """
    found = store.client.search_runs([experiment], which, max_results=MOST_TWINS)
    if not found:
        make()
        found = store.client.search_runs([experiment], which, max_results=MOST_TWINS)
    first, *others = found
    for other in others:
        if other.info.start_time == first.info.start_time and not (other.data.metrics or other.data.params):
            store.client.delete_run(other.info.run_id)
    return first


def is_of_one_run(store: Store, error: Exception) -> bool:
    """Whether an error concerns one run alone, so that others can be sent; if that is unclear, the store is queried.

    A server that fails on one run's record still answers other requests.
    """
    if is_refusal(error):
        return True
    if is_away(error):
        return False
    try:
        store.client.search_experiments(max_results=1)
    except Exception:  # of MLflow, its database and HTTP libraries
        return False
    return True


def refusal(store: Store, error: Exception, mend: str) -> str:
    """Describe in one line an error that concerns one run alone, or its records on disk.

    Raises:
        TrackingError: the store is unavailable; ``mend`` says in its message what to do once it is back.
    """
    if isinstance(error, FnostabError):
        return str(error)
    line = describe(error, store.uri)
    if not is_of_one_run(store, error):
        raise TrackingError(f"{line}; {mend}") from error
    return line


def existing_run(store: Store, run_id: str) -> Any:
    """Find the run with an ID that a user gave.

    Raises:
        TrackingError: there is no such run.
    """
    try:
        return store.client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise TrackingError(f"no run {run_id} in {store.address}: check the id, or --tracking-uri") from None


@contextmanager
def reported(store: Store) -> Iterator[None]:
    """Convert errors of MLflow and its libraries to a `TrackingError` of one line."""
    try:
        yield
    except (MlflowException, requests.RequestException, sqlalchemy.exc.SQLAlchemyError, OSError) as error:
        raise tracking_error(error, store.uri) from error


def _apart(uri: str) -> tuple[str, dict[str, str]]:
    """Split the user and password off a server's address, and return them as MLflow's environment variables.

    Messages and tracebacks that show the address then show no password.
    """
    found = _USER_INFO.match(uri)
    if not found:
        return uri, {}
    bare = found[1] + uri[found.end() :]
    return bare, {"MLFLOW_TRACKING_USERNAME": unquote(found[2]), "MLFLOW_TRACKING_PASSWORD": unquote(found[3])}
