"""``fnostab export``: the table that a verdict is made from."""

from pathlib import Path

import click

from fnostab.cli.options import TRACKING_URI, store_to_read


@click.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--experiment", required=True, help="MLflow experiment of Stage A.")
@click.option("--deep-experiment", help="MLflow experiment of Stage B.")
@TRACKING_URI
def command(file: Path, experiment: str, deep_experiment: str | None, tracking_uri: str | None) -> None:
    """Write the trials of the newest study of an experiment to FILE, as CSV.

    `fnostab decide --table FILE` judges it, on any machine, without MLflow.
    """
    from fnostab.record.table import write_table
    from fnostab.tracking import find_experiment, newest_study, trial_rows

    store = store_to_read(tracking_uri)
    stages = {}
    for stage, name in (("a", experiment), ("b", deep_experiment)):
        if name:
            found = find_experiment(store, name)
            stages[stage] = trial_rows(store, found, newest_study(store, found))
    write_table(file, stages)
    click.echo(f"{sum(map(len, stages.values()))} trials written to {file}")
