"""``fnostab ui``: the records in MLflow's own pages."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING

import click

from fnostab.cli.options import TRACKING_URI

if TYPE_CHECKING:
    from fnostab.tracking import Store

READY_S = 90.0


@click.command("ui")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="The next free one from it."
)
@TRACKING_URI
def command(port: int, tracking_uri: str | None) -> None:
    """Start the MLflow UI on this machine's records, on loopback, until Ctrl-C.

    Points at the server instead if the records are on one.
    """
    from fnostab.tracking import free_port, open_store, ui_command, wait_until_ready

    store = open_store(tracking_uri)
    if store.uri.startswith("http"):
        _print_addresses(store, store.address)
        return
    chosen = free_port(port)
    if chosen != port:
        click.echo(f"port {port} is taken, using {chosen}")
    url = f"http://127.0.0.1:{chosen}"
    click.echo(f"starting the MLflow UI on {store.address} ...")
    server = subprocess.Popen(ui_command(store, chosen), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_ready(url, READY_S, server)
        _print_addresses(store, url)
        click.echo("Ctrl-C ends it")
        server.wait()
    except KeyboardInterrupt:
        click.echo("ended")
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(10)
        if server.poll() is None:
            server.kill()


def _print_addresses(store: Store, url: str) -> None:
    from fnostab.tracking import install_view, view_address

    click.echo(f"MLflow UI: {url}")
    for experiment in store.client.search_experiments():
        if experiment.name != "Default":
            with_charts = install_view(store, experiment.experiment_id)
            click.echo(f"  {experiment.name}: {view_address(url, experiment.experiment_id, with_charts=with_charts)}")
