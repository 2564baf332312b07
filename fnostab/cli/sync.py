"""``fnostab sync``: send journals on disk to MLflow."""

from pathlib import Path

import click

from fnostab.cli.options import TRACKING_URI


@click.command("sync")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@TRACKING_URI
@click.pass_context
def command(context: click.Context, /, path: Path, tracking_uri: str | None) -> None:
    """Send every journal under PATH that MLflow does not hold yet; a second call sends nothing.

    PATH is a trial's folder, a study's, or the whole output folder, brought from another machine too.
    """
    from fnostab.tracking import open_store, sync

    store = open_store(tracking_uri)
    report = sync(path, store)
    click.echo(f"{report.trials} trials, {report.points_sent} points sent to {store.address}")
    for line in report.refused:
        click.echo(f"not sent: {line}", err=True)
    context.exit(2 if report.refused else 0)
