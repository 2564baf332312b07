"""Start MLflow's own web page on a store, on loopback only."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

from fnostab.errors import TrackingError
from fnostab.tracking.store import Store

__all__ = ["free_port", "ui_command", "wait_until_ready"]

HOST = "127.0.0.1"
PORTS_TRIED = 50


def ui_command(store: Store, port: int) -> list[str]:
    """Command that serves the store's web page at ``http://127.0.0.1:<port>``.

    Raises:
        TrackingError: the store is a server, and so serves that page itself.
    """
    if store.uri.startswith("http"):
        raise TrackingError(f"{store.address} is a server and shows the page itself: open it in a browser")
    server = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri]
    return [*server, "--host", HOST, "--port", str(port), "--workers", "1"]


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


def wait_until_ready(url: str, timeout_s: float, process: "subprocess.Popen[bytes] | None" = None) -> None:
    """Wait until the MLflow server at ``url`` answers.

    Args:
        url: of the server.
        timeout_s: how long; a start takes 5 to 30 s.
        process: the server, so that its early end is noticed.

    Raises:
        TrackingError: it ended, or does not answer in time.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise TrackingError(f"the MLflow server for {url} ended at once with status {process.returncode}")
        try:
            with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise TrackingError(f"nothing answers at {url} after {timeout_s:.0f} s: look at the output of the server")
