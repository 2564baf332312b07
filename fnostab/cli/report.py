"""``fnostab report``: the verdict with its figures, to be shown and passed on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fnostab.cli.options import TRACKING_URI, store_to_read
from fnostab.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fnostab.report.content import Report
    from fnostab.tracking import Store


@click.command("report")
@click.option("--experiment", help="MLflow experiment of Stage A.")
@click.option("--deep-experiment", help="MLflow experiment of Stage B, the deep stress test.")
@click.option("--study-run", help="Run id of the study to judge.  [default: the newest of the experiment]")
@click.option("--deep-study-run", help="The same for Stage B.")
@click.option("--runs", type=click.Path(path_type=Path), help="A YAML file that maps runs of your own to trials.")
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write to.  [default: reports/EXPERIMENT, or reports/FILE]",
)
@TRACKING_URI
def command(
    experiment: str | None,
    deep_experiment: str | None,
    study_run: str | None,
    deep_study_run: str | None,
    runs: Path | None,
    output: Path | None,
    tracking_uri: str | None,
) -> None:
    """Judge as `fnostab decide` does, and write the verdict with its evidence as a report.

    report.html is one file that needs nothing beside it. report.md says the same, with its pictures
    beside it. Both are added to the verdict's run in MLflow; of runs of your own nothing is written there.
    """
    if (experiment is None) == (runs is None):
        raise ConfigError("say what to report on: --experiment NAME, or --runs FILE.yaml")
    from fnostab.report.documents import write
    from fnostab.tracking.read.histories import log_files

    if runs is not None:
        report = _of_runs(runs, tracking_uri)
        files = write(report, output or Path("reports", runs.stem))
    else:
        store = store_to_read(tracking_uri)
        stages = {"deep_experiment": deep_experiment or None, "study_run": study_run, "deep_study_run": deep_study_run}
        report = _of_store(store, experiment or "", stages)
        folder = output or Path("reports", experiment or "")
        files = write(report, folder)
        log_files(store, report.verdict_run or "", files, folder, "report")
    click.echo(f"{report.headline}{f': {report.verdict.reason}' if report.verdict.reason else ''}")
    click.echo(f"next: {report.verdict.next_step}")
    for path in files[:2]:
        click.echo(f"{path} ({path.stat().st_size / 1e3:,.0f} kB)")
    if report.verdict_run:
        click.echo(f"recorded with run {report.verdict_run}")


def _of_store(store: Store, experiment: str, stages: Mapping[str, str | None]) -> Report:
    """Judge and record; ``stages`` are options of `judge_and_record`."""
    from datetime import datetime

    from fnostab.cli.judging import judge_and_record
    from fnostab.report.content import compose
    from fnostab.report.evidence import gather

    judged = judge_and_record(store, experiment, **stages)
    return compose(
        judged.case,
        gather(store, judged.case, judged.experiment_ids),
        experiment=experiment,
        store=store.address,
        verdict_run=judged.verdict_run,
        made_at=datetime.now().astimezone(),
    )


def _of_runs(path: Path, tracking_uri: str | None) -> Report:
    from datetime import datetime

    from fnostab.cli.decide_runs import judge_runs
    from fnostab.report.content import compose
    from fnostab.report.evidence import Evidence, gather_of_runs

    judged = judge_runs(path, tracking_uri)
    evidence = Evidence(epochs=False)
    if judged.store is not None:
        evidence = gather_of_runs(judged.store, judged.case, judged.history, judged.experiment_ids)
    now = datetime.now().astimezone()
    return compose(judged.case, evidence, experiment=path.stem, store=judged.source, made_at=now)
