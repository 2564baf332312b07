"""``fnostab cancel``: end a study wherever its trials run."""

import shlex
from pathlib import Path

import click

from fnostab.cli.options import OUTPUT, TRACKING_URI
from fnostab.cli.printing import echo
from fnostab.errors import LaunchError, TrackingError
from fnostab.record.plurals import counted


@click.command("cancel", epilog="Example: fnostab cancel stage_a")
@click.argument("experiment", required=False)
@OUTPUT
@TRACKING_URI
@click.pass_context
def command(context: click.Context, /, experiment: str | None, output: Path, tracking_uri: str | None) -> None:
    """End the newest study of EXPERIMENT, wherever its trials run; without EXPERIMENT, the study started last.

    Jobs of a cluster are cancelled, processes of this machine are asked to end, and `fnostab run`, if it still runs,
    stops. Trials that ran, or waited in a queue, are `killed`; the same `fnostab run` command resumes them.
    """
    from fnostab.launch.cancelling import cancel_study
    from fnostab.show.sources import newest_folder
    from fnostab.tracking import existing_store, reconcile

    folder = newest_folder(output, experiment)
    if folder is None:
        where = output.absolute() / (experiment or "")
        raise LaunchError(f"no study found under {where}: name its experiment, and its output folder with --output")
    ended, running = cancel_study(folder)
    for trial in ended:
        echo(f"{trial.name}: {trial.outcome}" + (f"  ({trial.reason})" if trial.reason else ""))
    trials = counted(len(ended), "running or waiting trial was", "running or waiting trials were")
    echo(f"{trials} ended, of {folder}" if ended or running else f"no trial of {folder} runs or waits")
    try:
        reconcile(existing_store(tracking_uri), output, folder.parent.name)
    except TrackingError as error:
        echo(f"not in MLflow yet: {error}; `fnostab sync {shlex.quote(str(output))}` sends it", err=True)
    for trial in running:
        echo(f"still running: {trial.name}, by {trial.owner}; run this on that machine", err=True)
    context.exit(2 if running else 0)
