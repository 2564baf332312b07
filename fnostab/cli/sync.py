"""``fnostab sync``: send journals on disk to MLflow."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fnostab.cli.options import TRACKING_URI
from fnostab.cli.printing import echo
from fnostab.errors import ConfigError, SlowStoreError, TrackingError
from fnostab.record.plurals import counted

if TYPE_CHECKING:
    from fnostab.tracking import Store, SyncReport

INTERVAL_S = 5.0  # between two rounds of --follow


@click.command("sync", epilog="Example: fnostab sync outputs")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--follow", is_flag=True, help="Continue until every study under PATH has ended.")
@click.option(
    "--verify",
    is_flag=True,
    help="Compare every point with MLflow's, send those that it lacks, and name those that no trial recorded.",
)
@TRACKING_URI
@click.pass_context
def command(context: click.Context, /, path: Path, follow: bool, verify: bool, tracking_uri: str | None) -> None:
    """Send the records under PATH that MLflow lacks; a second call sends nothing.

    PATH is a trial's folder, a study's, or the whole output folder; it may be a copy from another machine, and is
    only read. With --follow, records are sent while trials write them, also those of jobs on nodes without a network;
    a store that does not answer is tried again. What can't be sent is named at the end, and the exit status is 2.
    """
    from fnostab.record.folders import insist_on_studies, insist_on_trials

    if follow and verify:
        raise ConfigError("--verify compares trials that have ended: leave out --follow")
    (insist_on_studies if follow else insist_on_trials)(path)  # before a database is created
    from fnostab.tracking import open_store, sync

    store = _open_in_time(tracking_uri) if follow else open_store(tracking_uri)
    report = _follow(path, store) if follow else sync(path, store, verify=verify)
    compared = "; every point was compared" if verify else ""
    points = (
        f", {counted(report.points_sent, 'point')} sent to" if report.points_sent or report.refused else " already in"
    )
    echo(f"{counted(report.trials, 'trial')}{points} {store.address}{compared}")
    for line in report.refused:
        echo(f"not sent: {line}", err=True)
    for line in report.otherwise:
        echo(f"not as recorded: {line}", err=True)
    context.exit(2 if report.refused or report.otherwise else 0)


def _open_in_time(tracking_uri: str | None) -> Store:
    """Open a store, trying again until a slow one answers."""
    from fnostab.tracking import open_store

    while True:
        try:
            return open_store(tracking_uri)
        except SlowStoreError as error:
            echo(f"{error}; retrying", err=True)
            time.sleep(INTERVAL_S)


def _follow(path: Path, store: Store) -> SyncReport:
    """Send records in rounds until all studies have ended, print what each round sent, and return the total."""
    from fnostab.show.following import follow
    from fnostab.tracking import SyncReport

    last, points, said = SyncReport(0, 0), 0, ""
    for sent in follow(path, store, INTERVAL_S):
        if isinstance(sent, TrackingError):
            if str(sent) != said:
                echo(f"{sent}; retrying", err=True)
            said = str(sent)
            continue
        last, points, said = sent, points + sent.points_sent, ""
        if sent.points_sent:
            echo(f"{counted(sent.points_sent, 'point')} sent", err=True)
    return replace(last, points_sent=points)
