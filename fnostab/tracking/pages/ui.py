"""Serve MLflow's web page: its command, environment, port and experiments, and a wait until it answers."""

import logging
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from fnostab.errors import TrackingError
from fnostab.record import names
from fnostab.record.process_end import last_words
from fnostab.record.stderr_tail import tail_of
from fnostab.tracking.environment import OWN, TELEMETRY
from fnostab.tracking.read.studies import find_experiment
from fnostab.tracking.store.errors import masked
from fnostab.tracking.store.paging import NEWEST_FIRST, every, of_kind
from fnostab.tracking.store.store import Store, reported

HOST = "127.0.0.1"
PORTS_TRIED = 50
LONGEST_REASON = 240  # characters
ANSWER_S = 10  # for one answer of a busy server
SAY_EVERY_S = 30
CLIENTS = (  # settings for clients or for another server, which a server that is started here must not get
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_AUTH_ADMIN_USERNAME",
    "MLFLOW_AUTH_ADMIN_PASSWORD",
    "MLFLOW_DEFAULT_ARTIFACT_ROOT",
    "MLFLOW_REGISTRY_STORE_URI",
    "MLFLOW_READ_REPLICA_BACKEND_STORE_URI",
    "MLFLOW_ARTIFACTS_ONLY",
    "MLFLOW_STATIC_PREFIX",
    "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE",
)
_log = logging.getLogger(__name__)


def ui_command(store: Store, port: int) -> tuple[list[str], dict[str, str]]:
    """Command and environment that serve the store's web page at ``http://127.0.0.1:<port>``.

    The store's address, which may hold a password, is in the environment: other users can read a command line.

    Raises:
        TrackingError: the store is a server, and so serves that page itself.
    """
    if store.uri.startswith("http"):
        raise TrackingError(f"{store.address} is a server and shows the page itself: open it in a browser")
    return server_command(HOST, port, workers=1), server_environment(store.uri)


def server_command(host: str, port: int, *, workers: int, passwords: bool = False) -> list[str]:
    """Command that starts a server whose records only its own pages may change."""
    server = [sys.executable, "-m", "fnostab.tracking.pages.mlflow_server", "server", "--host", host]
    server += ["--port", str(port), "--workers", str(workers)]
    return [*server, "--app-name", "basic-auth"] if passwords else server


def server_environment(backend: str) -> dict[str, str]:
    """Environment of a server on the database ``backend``; it may hold the database's password."""
    values = {name: value for name, value in os.environ.items() if name not in CLIENTS}
    return OWN | values | {TELEMETRY: "true", "MLFLOW_BACKEND_STORE_URI": backend}


def free_port(preferred: int = 5000) -> int:
    """Find the first free port from ``preferred`` on.

    Raises:
        TrackingError: none of the next 50 is free.
    """
    for port in range(preferred, preferred + PORTS_TRIED):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise TrackingError(f"no port from {preferred} to {preferred + PORTS_TRIED - 1} is free: name another one")


def experiments_with_runs(store: Store, name: str | None = None) -> dict[str, str]:
    """Names and IDs of the experiments that hold trials, the one with the newest study first; ``name`` selects one.

    Raises:
        TrackingError: the store does not answer, or the experiment called ``name`` is missing or has no trials.
    """
    if name is not None:
        experiments = {name: find_experiment(store, name)}
    with reported(store):
        if name is None:
            every_one = every(store.client.search_experiments, order_by=["creation_time DESC"])
            experiments = {each.name: str(each.experiment_id) for each in every_one}
        ids = list(experiments.values())
        studies = store.client.search_runs(ids, of_kind(names.KIND_STUDY), 1, 1, NEWEST_FIRST) if ids else []
        newest = studies[0].info.experiment_id if studies else None
        found = {
            key: value
            for key, value in sorted(experiments.items(), key=lambda item: item[1] != newest)
            if store.client.search_runs([value], of_kind(names.KIND_TRIAL), max_results=1)
        }
    if name is not None and not found:
        raise TrackingError(f"experiment {name!r} in {store.address} holds no trials yet: `fnostab run` fills one")
    return found


def wait_until_ready(
    url: str, timeout_s: float, process: "subprocess.Popen[bytes] | None" = None, log: Path | None = None
) -> None:
    """Wait until the MLflow server at ``url`` answers.

    A warning is logged every 30 s.

    Args:
        url: address of the server.
        timeout_s: longest wait; a start takes 5 to 30 s, and minutes on a busy machine.
        process: the server's process, so that its early end is noticed.
        log: file with the server's output; the error quotes it if the server ended.

    Raises:
        TrackingError: the server ended, or does not answer in time.
    """
    started = time.monotonic()
    deadline, said = started + timeout_s, 0
    where = f"its log {log}" if log is not None else "the output of the server"
    while time.monotonic() < deadline:
        if (waited := int((time.monotonic() - started) / SAY_EVERY_S)) > said:
            said = waited
            _log.warning("still waiting for %s, no answer for %d s: see %s", url, said * SAY_EVERY_S, where)
        if process is not None and process.poll() is not None:
            raise TrackingError(how_server_ended(process.returncode, log))
        try:
            with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=ANSWER_S):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise TrackingError(f"nothing answers at {url} after {timeout_s:.0f} s: look at {where}")


def how_server_ended(status: int, log: Path | None) -> str:
    """Say with which status a server ended, and why, from its log."""
    if log is None:
        return f"MLflow's server ended with status {status}; see its output"
    why = masked(last_words(tail_of(log)))[:LONGEST_REASON]
    return f"MLflow's server ended with status {status}: {why}; see its log {log}"
