"""``fnostab export``: the table that a verdict is made from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fnostab.cli.options import TRACKING_URI, store_to_read
from fnostab.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fnostab.decision import Stage
    from fnostab.record.table import TableStudy
    from fnostab.tracking import Store


@click.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--experiment", help="MLflow experiment of the study, or of its Stage A.")
@click.option("--deep-experiment", help="MLflow experiment of Stage B.")
@click.option("--study-run", help="Run id of the study.  [default: the newest of the experiment]")
@click.option("--deep-study-run", help="The same for Stage B.")
@click.option("--runs", type=click.Path(path_type=Path), help="A YAML file that maps runs of your own to trials.")
@TRACKING_URI
def command(
    file: Path,
    experiment: str | None,
    deep_experiment: str | None,
    study_run: str | None,
    deep_study_run: str | None,
    runs: Path | None,
    tracking_uri: str | None,
) -> None:
    """Write the trials of the newest study of an experiment, or runs of your own, to FILE, as CSV.

    `fnostab decide --table FILE` judges it, on any machine, without MLflow, and says the same as on the store: the
    table holds quality, roles, alpha and all else that the answer needs. pandas and R may read and write it between.
    """
    if (experiment is None) == (runs is None):
        raise ConfigError("say what to export: --experiment NAME, or --runs FILE.yaml")
    from fnostab.record.table import Table, TableStudy, write_table

    if runs is not None:
        from fnostab.cli.decide_runs import judge_runs

        external = judge_runs(runs, tracking_uri).runs
        stages, study = {"a": external.stage}, TableStudy.of(external)
    else:
        places = {"a": (experiment or "", study_run)}
        places |= {"b": (deep_experiment, deep_study_run)} if deep_experiment else {}
        stages, study = _of_store(store_to_read(tracking_uri), places)
    missing = {name: stage.all_missing for name, stage in stages.items()}
    write_table(file, Table({name: stage.trials for name, stage in stages.items()}, study, missing))
    click.echo(f"{sum(len(stage.trials) for stage in stages.values())} trials written to {file}")


def _of_store(store: Store, places: Mapping[str, tuple[str, str | None]]) -> tuple[dict[str, Stage], TableStudy]:
    """Trials by stage, and what is to be said of the study; ``places`` are experiment and study run of each stage."""
    from fnostab.cli.judging import stage_of
    from fnostab.decision.setting_values import values_along
    from fnostab.record.table import TableStudy
    from fnostab.tracking import find_experiment, looks_before, newest_study

    ids = {name: find_experiment(store, experiment) for name, (experiment, _) in places.items()}
    records = {name: newest_study(store, ids[name], run) for name, (_, run) in places.items()}
    stages = {name: stage_of(name, store, ids[name], record) for name, record in records.items()}
    record, stage = records["a"], stages["a"]
    seeds = max((len(stage.arm(arm)) for arm in stage.arms), default=0)
    look = 1 + looks_before(store, ids["a"], record.run_id, seeds=seeds)
    along = values_along(record.spec.arms)
    arms = {arm: {along[0]: value} for arm, value in along[1].items()} if along else {}
    return stages, TableStudy.of(record.spec, look=look, looks_planned=bool(record.spec.looks), arms=arms)
