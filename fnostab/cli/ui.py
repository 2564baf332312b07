"""``fnostab ui``: show the records in the MLflow UI."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fnostab.cli.options import TRACKING_URI
from fnostab.cli.printing import echo
from fnostab.show.visible import visible

if TYPE_CHECKING:
    from fnostab.tracking import Store

READY_S = 600.0
STOP_S = 10.0


@click.command("ui", epilog="Example: fnostab ui stage_a")
@click.argument("experiment", required=False)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=5000,
    show_default=True,
    help="First port to try; the next free one is used.",
)
@click.option("--no-open", is_flag=True, help="Do not open it in a browser.")
@TRACKING_URI
def command(experiment: str | None, port: int, no_open: bool, tracking_uri: str | None) -> None:
    """Show the records in the MLflow UI, with charts that are already there.

    Serves this machine's records on loopback until Ctrl-C; if the records are on a server, shows its
    address instead. Prints and opens the address of the newest study's charts, then lists the other
    views of every EXPERIMENT with trials.
    """
    from fnostab.tracking import existing_store, experiments_with_runs

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the server ends with this process
    store = existing_store(tracking_uri)
    experiments = experiments_with_runs(store, experiment)
    if store.uri.startswith("http"):
        _show(store, store.address, experiments, opens=not no_open)
        return
    with _served(store, port) as (url, server):
        _show(store, url, experiments, opens=not no_open)
        echo("Ctrl-C stops it")
        with contextlib.suppress(KeyboardInterrupt):
            server.wait()
    echo("ended")


@contextlib.contextmanager
def _served(store: Store, port: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run MLflow's server on a store; yield it with its address once it answers."""
    from fnostab.tracking import free_port, ui_command, wait_until_ready

    chosen = free_port(port)
    if chosen != port:
        echo(f"port {port} is taken, using {chosen}", err=True)
    url = f"http://127.0.0.1:{chosen}"
    with tempfile.NamedTemporaryFile(prefix="fnostab-ui-", suffix=".log", delete=False) as log:
        echo(f"starting the MLflow UI on {store.address}, log in {log.name} ...", err=True)
        line, environment = ui_command(store, chosen)
        server = subprocess.Popen(line, env=environment, stdout=log, stderr=log)
        try:
            wait_until_ready(url, READY_S, server, Path(log.name))
            yield url, server
        finally:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(STOP_S)
            if server.poll() is None:
                server.kill()


def _show(store: Store, url: str, experiments: dict[str, str], *, opens: bool) -> None:
    from fnostab.tracking import experiments_page, install_views, view_addresses

    if not experiments:
        echo(experiments_page(url))
        echo("no experiment with trials yet: `fnostab run stage_a` makes one")
        return
    installed = {name: install_views(store, identifier) for name, identifier in experiments.items()}
    addresses = {name: view_addresses(url, experiments[name], views) for name, views in installed.items()}
    newest = next(iter(next(iter(addresses.values())).values()))
    echo(newest)
    if opens and _is_desktop():
        webbrowser.open(newest)
    for name, views in installed.items():
        click.secho(visible(f"\n{name}"), dim=True)
        width = max(map(len, addresses[name]))
        for view, address in addresses[name].items():
            if address != newest:
                click.secho(visible(f"  {view:<{width}}  {address}"), dim=True)
        for remark in views.remarks:
            echo(f"  note: {remark}")
    echo()


def _is_desktop() -> bool:
    """Whether this process runs in a terminal of a machine with a display."""
    has_display = sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    return has_display and sys.stdout.isatty()
