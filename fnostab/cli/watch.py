"""``fnostab watch``: show a study while it runs, from any terminal."""

from __future__ import annotations

import gc
import math
from pathlib import Path

import click

from fnostab.cli.options import OUTPUT, TRACKING_URI
from fnostab.cli.printing import echo
from fnostab.errors import ConfigError

SHORTEST_S, LONGEST_S = 0.2, 3600.0


@click.command("watch")
@click.argument("experiment", required=False)
@click.option("--once", is_flag=True, help="Print how it stands now, and end.")
@click.option("--interval", default="1", show_default=True, metavar="SECONDS", help="Between two looks.")
@OUTPUT
@TRACKING_URI
def command(experiment: str | None, once: bool, interval: str, output: Path, tracking_uri: str | None) -> None:
    """Show the newest study of EXPERIMENT until it ends.

    Without EXPERIMENT it is the newest experiment with a study. Works from any terminal: reads the
    journals under --output where they are, and the records in MLflow otherwise. It changes nothing,
    and Ctrl-C ends only the watching.
    """
    interval_s = _seconds(interval)
    try:
        from fnostab.cli.console import Console
        from fnostab.show.watch import watch_study

        gc.freeze()  # as in `store_to_read`: it has imported MLflow
        watch_study(
            experiment,
            output=output,
            tracking_uri=tracking_uri,
            interval_s=interval_s,
            once=once,
            console=Console(),
        )
    except KeyboardInterrupt:
        echo("watched no longer; the study goes on")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise ConfigError(
            f"interval={text!r} is not accepted: give seconds from {SHORTEST_S:g} to {LONGEST_S:g}, as in --interval 5"
        )
    return seconds
