"""``fnostab export``: write the trials of a verdict as a CSV table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fnostab.cli.options import RUNS, TRACKING_URI, insist_on_one, store_to_read, stored_studies
from fnostab.cli.printing import echo
from fnostab.errors import ConfigError
from fnostab.record.plurals import counted

if TYPE_CHECKING:
    from fnostab.decision import Stage
    from fnostab.record.table_study import TableStudy
    from fnostab.report.named_studies import StoredStudies
    from fnostab.tracking import Store


@click.command("export", epilog="Example: fnostab export trials.csv --experiment stage_a")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@stored_studies
@RUNS
@TRACKING_URI
def command(file: Path, stored: StoredStudies | None, runs: Path | None, tracking_uri: str | None) -> None:
    """Write the trials of the newest study of an experiment, or runs of your own, to FILE, as CSV.

    `fnostab decide --table FILE` judges it on any machine, without MLflow, and gives the same answer as on the store:
    the table holds quality, roles, alpha and everything else that the answer needs. pandas and R may rewrite it.
    """
    insist_on_one({"--experiment": stored, "--runs FILE.yaml": runs}, tracking_uri, "export")
    from fnostab.record.table import Table
    from fnostab.record.table_file import write_table
    from fnostab.record.table_study import TableStudy

    if runs is not None:
        from fnostab.cli.decide_runs import judge_runs

        judged = judge_runs(runs, tracking_uri)
        if file.exists() and any(file.samefile(each) for each in (runs, judged.source) if Path(each).exists()):
            raise ConfigError(f"{file} would be overwritten, and the runs are read from it: name another file to write")
        case = judged.case
        stages, study = {stage.name: stage for stage in case.stages}, TableStudy.of(case.studies["a"])
    elif stored is not None:
        stages, study = _of_store(store_to_read(tracking_uri), stored)
    missing = {name: stage.all_missing for name, stage in stages.items()}
    same_settings = {name: stage.same_settings for name, stage in stages.items()}
    write_table(file, Table({name: stage.trials for name, stage in stages.items()}, study, missing, same_settings))
    echo(f"{counted(sum(len(stage.trials) for stage in stages.values()), 'trial')} written to {file}")


def _of_store(store: Store, stored: StoredStudies) -> tuple[dict[str, Stage], TableStudy]:
    """Read the trials by stage, and the description of the study for the table's header."""
    from fnostab.decision.sweep import values_along
    from fnostab.record.table_study import TableStudy
    from fnostab.report.stored_studies import read_stages

    found = read_stages(store, stored)
    spec = found.records["a"].spec
    along = values_along(spec.arms)
    arms = {arm: {along[0]: value} for arm, value in along[1].items()} if along else {}
    return found.trials, TableStudy.of(spec, look=found.look, looks_planned=bool(spec.looks), arms=arms)
