"""Start MLflow's own web page on a store, on loopback only, and say what there is to see on it."""

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
from fnostab.tracking.environment import OWN, TELEMETRY
from fnostab.tracking.store.store import Store, masked, reported

__all__ = ["experiments_with_runs", "free_port", "ui_command", "wait_until_ready"]

HOST = "127.0.0.1"
PORTS_TRIED = 50
LONGEST_REASON = 200  # characters


def ui_command(store: Store, port: int) -> tuple[list[str], dict[str, str]]:
    """Command and environment that serve the store's web page at ``http://127.0.0.1:<port>``.

    The store's address, which may hold a password, is in the environment: a command line is seen by everyone.

    Raises:
        TrackingError: the store is a server, and so serves that page itself.
    """
    if store.uri.startswith("http"):
        raise TrackingError(f"{store.address} is a server and shows the page itself: open it in a browser")
    server = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    return server, {**OWN, **os.environ, TELEMETRY: "true", "MLFLOW_BACKEND_STORE_URI": store.uri}


def free_port(preferred: int = 5000) -> int:
    """``preferred`` if nothing listens there, or else the next free port: compare, and say so.

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
    """Names and ids of the experiments that hold trials, newest first.

    Args:
        store: where to look.
        name: look at this experiment alone.

    Raises:
        TrackingError: the store does not answer, or the experiment called ``name`` is missing or has no trials.
    """
    are_trials = f"tags.`{names.KIND}` = '{names.KIND_TRIAL}'"
    with reported(store):
        there_are = store.client.search_experiments(order_by=["creation_time DESC"])
        found = {
            experiment.name: str(experiment.experiment_id)
            for experiment in there_are
            if name in (None, experiment.name)
            and store.client.search_runs([experiment.experiment_id], are_trials, max_results=1)
        }
    if name is None or found:
        return found
    if name in {experiment.name for experiment in there_are}:
        raise TrackingError(f"experiment {name!r} in {store.address} holds no trials yet: `fnostab run` fills one")
    others = ", ".join(sorted(experiment.name for experiment in there_are)) or "none"
    raise TrackingError(f"there is no experiment {name!r} in {store.address}; there are: {others}")


def wait_until_ready(
    url: str, timeout_s: float, process: "subprocess.Popen[bytes] | None" = None, log: Path | None = None
) -> None:
    """Wait until the MLflow server at ``url`` answers.

    Args:
        url: of the server.
        timeout_s: how long; a start takes 5 to 30 s.
        process: the server, so that its early end is noticed.
        log: file that takes its output, whose last line then says why.

    Raises:
        TrackingError: it ended, or does not answer in time.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            why = f": {_last_line(log)}" if log is not None and _last_line(log) else ""
            raise TrackingError(f"the MLflow server for {url} ended at once with status {process.returncode}{why}")
        try:
            with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise TrackingError(f"nothing answers at {url} after {timeout_s:.0f} s: look at the output of the server")


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return masked(lines[-1])[:LONGEST_REASON] if lines else ""
