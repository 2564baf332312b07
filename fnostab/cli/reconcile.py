"""``fnostab reconcile``: close runs whose process is gone."""

from pathlib import Path

import click

from fnostab.cli.options import OUTPUT, TRACKING_URI
from fnostab.cli.printing import echo
from fnostab.record.plurals import counted


@click.command("reconcile", epilog="Example: fnostab reconcile stage_a")
@click.argument("experiment", required=False)
@OUTPUT
@TRACKING_URI
@click.pass_context
def command(context: click.Context, /, experiment: str | None, output: Path, tracking_uri: str | None) -> None:
    """Close the runs of EXPERIMENT, or of all, that are RUNNING although their process is gone.

    What their journals still hold is sent, and each run gets its outcome. A process of another host counts as
    alive for 15 minutes after its last sign. `fnostab run` does this first.
    """
    from fnostab.tracking import existing_store, find_experiment, reconcile

    store = existing_store(tracking_uri)
    if experiment is not None:
        find_experiment(store, experiment)  # a name that is wrong is an error here
    report = reconcile(store, output, experiment)
    for run in report.closed:
        points = f", {counted(run.points_sent, 'point')} sent" if run.points_sent else ""
        reason = f"  ({run.reason})" if run.reason else ""
        echo(f"{run.name}  {run.what}: {run.outcome}{points}{reason}")
    at_work = f", {report.at_work} still running" if report.at_work else ""
    echo(f"{counted(len(report.closed), 'run')} closed{at_work} in {store.address}")
    for line in report.refused:
        echo(f"not closed: {line}", err=True)
    context.exit(2 if report.refused else 0)
