"""``fnostab export``: the table that a verdict is made from."""

from pathlib import Path

import click

from fnostab.cli.options import TRACKING_URI, store_to_read


@click.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--experiment", required=True, help="MLflow experiment of the study, or of its Stage A.")
@click.option("--deep-experiment", help="MLflow experiment of Stage B.")
@click.option("--study-run", help="Run id of the study.  [default: the newest of the experiment]")
@click.option("--deep-study-run", help="The same for Stage B.")
@TRACKING_URI
def command(
    file: Path,
    experiment: str,
    deep_experiment: str | None,
    study_run: str | None,
    deep_study_run: str | None,
    tracking_uri: str | None,
) -> None:
    """Write the trials of the newest study of an experiment to FILE, as CSV.

    `fnostab decide --table FILE` judges it, on any machine, without MLflow, and says the same as on the store: the
    table holds quality, roles, alpha and all else that the answer needs. pandas and R may read and write it between.
    """
    from fnostab.cli.decide import stage_of
    from fnostab.record.table import Table, TableStudy, write_table
    from fnostab.tracking import find_experiment, looks_before, newest_study

    store = store_to_read(tracking_uri)
    stages, study = {}, None
    for name, where, run in (("a", experiment, study_run), ("b", deep_experiment, deep_study_run)):
        if where:
            found = find_experiment(store, where)
            record = newest_study(store, found, run)
            stages[name] = stage_of(name, store, found, record)
            if study is None:
                seeds = max((len(stages[name].arm(arm)) for arm in stages[name].arms), default=0)
                look = 1 + looks_before(store, found, record.run_id, seeds=seeds)
                study = TableStudy.of(record.spec, look=look, looks_planned=bool(getattr(record.spec, "looks", ())))
    missing = {name: stage.all_missing for name, stage in stages.items()}
    write_table(file, Table({name: stage.trials for name, stage in stages.items()}, study, missing))
    click.echo(f"{sum(len(stage.trials) for stage in stages.values())} trials written to {file}")
