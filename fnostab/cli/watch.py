"""``fnostab watch``: show a study while it runs, from any terminal."""

from __future__ import annotations

import gc
import shlex
from pathlib import Path

import click

from fnostab.cli.options import OUTPUT, OUTPUT_FOLDER, TRACKING_URI
from fnostab.cli.printing import echo


@click.command("watch", epilog="Example: fnostab watch stage_a")
@click.argument("experiment", required=False)
@click.option("--once", is_flag=True, help="Print the current state once, and exit.")
@OUTPUT
@TRACKING_URI
def command(experiment: str | None, once: bool, output: Path, tracking_uri: str | None) -> None:
    """Show the newest study of EXPERIMENT until it ends.

    Without EXPERIMENT it is the newest experiment with a study. Works from any terminal: reads the
    journals under --output where they are, and the records in MLflow otherwise. It changes nothing,
    and Ctrl-C ends only the watching.
    """
    try:
        from fnostab.show.console import Console
        from fnostab.show.watch import watch_study

        gc.freeze()  # as in `store_to_read`, after importing MLflow
        watch_study(experiment, output=output, tracking_uri=tracking_uri, once=once, console=Console())
    except KeyboardInterrupt:
        words = ["fnostab", "watch", *([experiment] if experiment else [])]
        words += ["--output", str(output)] if output != OUTPUT_FOLDER else []
        words += ["--tracking-uri", tracking_uri] if tracking_uri else []
        echo(f"stopped watching; the study is still running\nnext: {shlex.join(words)}")
