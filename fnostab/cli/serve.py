"""``fnostab serve``: start a tracking server for a group."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fnostab.cli.printing import echo
from fnostab.errors import ConfigError

if TYPE_CHECKING:
    from fnostab.serve.server import TrackingServer
    from fnostab.serve.settings import ServerSettings

PASSWORD = "MLFLOW_AUTH_ADMIN_PASSWORD"
USERNAME = "MLFLOW_AUTH_ADMIN_USERNAME"


@click.command("serve", epilog="Example: fnostab serve --host 0.0.0.0 --auth")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("mlflow-server"),
    show_default=True,
    help="Folder of the server: its database, artifacts, users and log.",
)
@click.option(
    "--backend",
    metavar="URI",
    envvar="MLFLOW_BACKEND_STORE_URI",
    help="Database, as in postgresql://...; with a password, set MLFLOW_BACKEND_STORE_URI instead.  "
    "[default: SQLite in the folder]",
)
@click.option("--artifacts-destination", metavar="URI", help="Where artifacts are kept.  [default: in the folder]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is all of them.")
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Port to listen on.")
@click.option("--allowed-hosts", metavar="NAMES", help="Further host names of the server, such as its proxy's.")
@click.option("--auth", is_flag=True, help=f"Ask users for a password. The administrator's first one: {PASSWORD}.")
@click.option("--workers", type=click.IntRange(1, 64), default=4, show_default=True, help="Number of server processes.")
def command(
    folder: Path,
    backend: str | None,
    artifacts_destination: str | None,
    host: str,
    port: int,
    allowed_hosts: str | None,
    auth: bool,
    workers: int,
) -> None:
    """Start MLflow's tracking server for a group, until Ctrl-C.

    Only this machine reaches it unless --host says otherwise. Artifacts go through the server, so
    that users need no access to where they are kept.
    """
    from fnostab.serve.server import TrackingServer
    from fnostab.serve.settings import ServerSettings

    settings = ServerSettings(
        folder=folder,
        backend=backend,
        artifacts=artifacts_destination,
        host=host,
        port=port,
        names=_names(allowed_hosts),
        auth=auth,
        workers=workers,
    )
    server = TrackingServer(settings)
    _warn(settings)
    if auth:
        _ensure_admin(folder)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        echo(f"starting MLflow's server, log in {server.log} ...")
        with server:
            _print_instructions(server)
            server.wait()
    except KeyboardInterrupt:
        echo("ended")


def _end(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _names(text: str | None) -> tuple[str, ...]:
    names = tuple(name.strip() for name in (text or "").split(",") if name.strip())
    for name in names:
        if any(mark in name for mark in "*/@ "):
            raise ConfigError(
                f"--allowed-hosts {name!r} is not accepted: give names as in a browser's address, "
                "without http:// and without wildcards, as in mlflow.example.org"
            )
    return names


def _warn(settings: ServerSettings) -> None:
    from fnostab.serve.settings import is_loopback

    if is_loopback(settings.host):
        return
    danger = (
        "passwords and records cross the network unencrypted: put a TLS proxy in front of it, and give its name "
        "with --allowed-hosts"
        if settings.auth
        else f"everyone who reaches {settings.host} port {settings.port} can read, change and delete all records: "
        "add --auth, or listen on 127.0.0.1 and let users connect through ssh -L"
    )
    click.secho(f"warning: {danger}", fg="yellow", err=True)


def _ensure_admin(folder: Path) -> None:
    """Create the administrator if there is none; the password comes from the environment or a prompt.

    Raises:
        ConfigError: the environment has no password, and there is no terminal for a prompt.
        TrackingError: the password is not accepted.
    """
    from fnostab.tracking import administrator, create_admin

    if administrator(folder) is not None:
        return
    name = os.environ.get(USERNAME) or "admin"
    password = os.environ.get(PASSWORD)
    if password is None:
        if not sys.stdin.isatty():
            raise ConfigError(f"--auth needs a first password for the administrator {name!r}: set {PASSWORD}")
        question = f"new password for the administrator {name!r}"
        password = click.prompt(question, hide_input=True, confirmation_prompt=True)
    create_admin(folder, name, password)


def _charts(server: TrackingServer) -> str:
    """Return the address of the newest study's charts; without a study, of the list of experiments."""
    from fnostab.tracking import charts_address, experiments_page, experiments_with_runs, open_store

    store, url = open_store(server.backend), server.settings.url
    experiment = next(iter(experiments_with_runs(store).values()), None)
    return experiments_page(url) if experiment is None else charts_address(store, experiment, url)


def _print_instructions(server: TrackingServer) -> None:
    settings, store = server.settings, server.address
    echo(_charts(server))
    echo(f"tracking server: {settings.url}")
    echo(f"  records in {store}, artifacts in {server.artifacts}")
    echo("on each machine that uses it:")
    echo(f"  export MLFLOW_TRACKING_URI={settings.url}")
    if settings.auth:
        echo("  export MLFLOW_TRACKING_USERNAME=...")
        echo("  read -rs MLFLOW_TRACKING_PASSWORD && export MLFLOW_TRACKING_PASSWORD")
        echo(f"the administrator adds users at {settings.url}/signup")
    echo("Ctrl-C stops it")
