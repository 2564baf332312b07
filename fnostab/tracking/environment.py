"""Settings that MLflow reads from the environment: set for fnostab's own processes and calls, never by an import."""

import getpass
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

__all__ = ["OWN", "added", "given", "import_mlflow", "settle", "settled", "user_name", "variables"]

TELEMETRY = "MLFLOW_DISABLE_TELEMETRY"
OWN = {
    # The journal is the retry buffer: a request gives up after a minute, not after MLflow's four
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # The terminal belongs to the live table; trouble is reported by `Uploader.trouble`
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Seven processes for `mlflow ui` that nothing here uses
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
LEVELS = {
    "mlflow": logging.ERROR,
    "urllib3.connectionpool": logging.ERROR,
    "mlflow.store.db.utils": logging.CRITICAL,  # each error of a database with its traceback, which is raised too
}

_lock = threading.Lock()
_within = 0  # calls of `settled` under way
_added: list[str] = []  # names that are in the environment because of this module
_before = ExitStack()  # puts back what else was changed


def settle() -> None:
    """Set what the user has not set, until this process ends: for processes that are fnostab's own."""
    global _within
    with _lock:
        _within += 1
        if _within == 1:
            _enter()


@contextmanager
def settled() -> Iterator[None]:
    """Settle the environment for the duration of a call in a user's process, and restore it afterwards."""
    global _within
    settle()
    try:
        yield
    finally:
        with _lock:
            _within -= 1
            if _within == 0:
                _leave()


def user_name() -> str:
    """Name under which runs are made: that of the server's user, or else of this machine's."""
    try:
        return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (KeyError, OSError):  # a container may know its user by number only
        return str(os.getuid())


def added() -> tuple[str, ...]:
    """Names of the variables that are set now and that the user did not set, but for telemetry, which stays off."""
    return tuple(_added)


def given() -> dict[str, str]:
    """The environment as the user gave it, without telemetry: of processes that run the user's programs."""
    return {name: value for name, value in os.environ.items() if name not in _added}


def import_mlflow() -> None:
    """Import MLflow, which starts its telemetry as it is imported, with that off.

    In a process that has imported it before, nothing changes.
    """
    with variables({TELEMETRY: "true"}):
        import mlflow  # noqa: F401


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while."""
    before = {name: os.environ[name] for name in values if name in os.environ}
    os.environ |= values
    try:
        yield
    finally:
        for name in values:
            os.environ.pop(name, None)
        os.environ |= before


def _enter() -> None:
    _added[:] = [name for name in OWN if name not in os.environ]
    os.environ.update({name: OWN[name] for name in _added})
    _before.enter_context(variables({TELEMETRY: "true"}))
    for name, level in LEVELS.items():
        logger = logging.getLogger(name)
        _before.callback(logger.setLevel, logger.level)
        logger.setLevel(level)


def _leave() -> None:
    _before.close()
    for name in _added:
        os.environ.pop(name, None)
    _added.clear()
