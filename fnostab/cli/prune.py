"""``fnostab prune``: thin the curves and archive the journals of old trials."""

from __future__ import annotations

import time
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fnostab.cli.options import OUTPUT, TRACKING_URI
from fnostab.cli.printing import echo
from fnostab.errors import ConfigError, JournalError
from fnostab.record.plurals import counted

if TYPE_CHECKING:
    from fnostab.tracking import Store


@click.command("prune", epilog="Example: fnostab prune --older-than 90d")
@click.option("--older-than", metavar="DATE|DAYS", required=True, help="As in 2026-01-31, or 90d.")
@click.option("--only", type=click.Choice(["points", "journals"]), help="Only one of the two.")
@click.option("--experiment", metavar="NAME", help="Only this experiment.  [default: all]")
@click.option("--yes", is_flag=True, help="Delete and archive. Without it, only show what would be done.")
@OUTPUT
@TRACKING_URI
@click.pass_context
def command(
    context: click.Context,
    /,
    older_than: str,
    only: str | None,
    experiment: str | None,
    yes: bool,
    output: Path,
    tracking_uri: str | None,
) -> None:
    """Thin the points of trials that ended before a date, and compress their journals.

    Of each long curve in the store the smallest and the largest value of 300 windows stay, so that no spike is
    lost; the archive keeps every point and is read like the journal. Trials that run, or may be tried again, are
    left alone, and so are summaries and verdicts. Points are thinned in the database itself: on the server's machine.
    """
    before_ms = _time_ms(older_than)
    refused = []
    if only != "journals":
        from fnostab.tracking import existing_store

        _thin(existing_store(tracking_uri), before_ms, experiment, yes)
    if only != "points":
        refused = _archive(output, before_ms, experiment, yes)
    if not yes:
        echo("nothing was changed: --yes does what is listed")
    for line in refused:
        echo(f"not archived: {line}", err=True)
    context.exit(2 if refused else 0)


def _time_ms(text: str) -> int:
    """Parse a date, or a number of days before now, into Unix milliseconds."""
    days = text.removesuffix("d")
    try:
        then = datetime.now() - timedelta(int(days)) if days.isdecimal() else datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        example = date.today() - timedelta(90)
        raise ConfigError(
            f"--older-than {text!r} is not accepted: give a date, such as {example}, or days, such as 90d"
        ) from None
    if then.timestamp() > time.time():
        raise ConfigError(f"--older-than {text!r} is in the future: give a date before today")
    return int(then.timestamp() * 1000)


def _thin(store: Store, before_ms: int, experiment: str | None, yes: bool) -> None:
    from fnostab.prune import KEPT_AT_MOST, shape_of
    from fnostab.tracking.repair.thinning import compact, long_runs, thin

    runs = long_runs(store, before_ms, KEPT_AT_MOST, experiment)
    for name in dict.fromkeys(run.experiment for run in runs):
        points = [n for run in runs if run.experiment == name for n in run.points.values()]
        trials = counted(sum(run.experiment == name for run in runs), "trial")
        deleted = sum(points) - KEPT_AT_MOST * len(points)
        echo(f"{name}: {trials}, at least {deleted:,} of {sum(points):,} points to delete")
    if not runs:
        echo(f"no long curves of that age in {store.address}")
    elif yes:
        deleted = sum(thin(store, runs, shape_of))
        echo(f"{counted(deleted, 'point')} of {counted(len(runs), 'trial')} deleted in {store.address}")
        compact(store)


def _archive(output: Path, before_ms: int, experiment: str | None, yes: bool) -> list[str]:
    """Archive journals; return a message for each that can't be."""
    from fnostab.prune import archive_journal, old_journals
    from fnostab.record.lines import FILE_NAME

    old, refused = old_journals(output, before_ms, experiment)
    sizes = {directory: (directory / FILE_NAME).stat().st_size for directory in old}
    if not yes or not old:
        echo(f"{counted(len(old), 'journal')} of that age in {output}, {sum(sizes.values()) / 1e6:.1f} MB")
        return refused
    before, archived = 0, list[int]()
    for directory, size in sizes.items():
        try:
            archived.append(archive_journal(directory))
            before += size
        except JournalError as error:
            refused.append(str(error))
    now = f"{before / 1e6:.1f} MB, now {sum(archived) / 1e6:.1f} MB"
    echo(f"{counted(len(archived), 'journal')} in {output} archived: {now}")
    return refused
