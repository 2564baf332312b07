"""Environment settings that MLflow reads, made for fnostab's own processes and calls, never by an import."""

import getpass
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from fnostab import __version__
from fnostab.record import names

TELEMETRY = "MLFLOW_DISABLE_TELEMETRY"
OWN = {
    # The journal is the retry buffer: a request gives up after a minute, not after MLflow's four
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # The terminal belongs to the live table; errors are reported by `Uploader.trouble`
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Else `mlflow ui` starts seven processes that nothing here uses
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
LEVELS = {
    "mlflow": logging.ERROR,
    "urllib3.connectionpool": logging.ERROR,
    "mlflow.store.db.utils": logging.CRITICAL,  # logs the traceback of each database error, which is raised as well
}

_lock = threading.Lock()
_within = 0  # active calls of `settle` and `settled`
_added: list[str] = []  # names of the variables of `OWN` that this module has set
_before = ExitStack()  # restores the log levels and the telemetry variable


def settle() -> None:
    """Make the settings until this process ends; for fnostab's own processes.

    Variables that the user has set keep their values, except that telemetry is always off.
    """
    global _within
    with _lock:
        _within += 1
        if _within == 1:
            _enter()


@contextmanager
def settled() -> Iterator[None]:
    """Make the settings of `settle` during a call in a user's process, and undo them afterwards."""
    global _within
    settle()
    try:
        yield
    finally:
        with _lock:
            _within -= 1
            if _within == 0:
                _leave()


def own_tags(kind: str) -> dict[str, str]:
    """Tags of every new run; its user is MLFLOW_TRACKING_USERNAME, or else the login name, or else the user ID."""
    try:
        user = os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (KeyError, OSError):  # the user of a container may have an ID without a name
        user = str(os.getuid())
    return {names.KIND: kind, names.SCHEMA_TAG: names.SCHEMA, names.VERSION: __version__, names.USER: user}


def added() -> tuple[str, ...]:
    """Names of the variables that this module has set, except the one that turns telemetry off."""
    return tuple(_added)


def given() -> dict[str, str]:
    """Environment for processes that run the user's programs: without the variables in `added`."""
    return {name: value for name, value in os.environ.items() if name not in _added}


def import_mlflow() -> None:
    """Import MLflow with its telemetry off, which would otherwise start at import.

    This has no effect in a process that has imported MLflow before.
    """
    with variables({TELEMETRY: "true"}):
        import mlflow  # noqa: F401


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables during a ``with`` block, and restore them afterwards."""
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
