"""``fnostab report``: the verdict with its figures, to be shown and passed on."""

from __future__ import annotations

from pathlib import Path

import click

from fnostab.cli.options import TRACKING_URI, store_to_read


@click.command("report")
@click.option("--experiment", required=True, help="MLflow experiment of Stage A.")
@click.option("--deep-experiment", help="MLflow experiment of Stage B, the deep stress test.")
@click.option("--study-run", help="Run id of the study to judge.  [default: the newest of the experiment]")
@click.option("--deep-study-run", help="The same for Stage B.")
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write to.  [default: reports/EXPERIMENT]",
)
@TRACKING_URI
def command(
    experiment: str,
    deep_experiment: str | None,
    study_run: str | None,
    deep_study_run: str | None,
    output: Path | None,
    tracking_uri: str | None,
) -> None:
    """Judge as `fnostab decide` does, and write the verdict with its evidence as a report.

    report.html is one file that needs nothing beside it. report.md says the same, with its pictures
    beside it. Both are added to the verdict's run in MLflow.
    """
    from datetime import datetime

    from fnostab.cli.decide import judge_and_record
    from fnostab.report.content import compose
    from fnostab.report.documents import write
    from fnostab.report.evidence import gather
    from fnostab.tracking.read.histories import log_files

    store = store_to_read(tracking_uri)
    judged = judge_and_record(
        store,
        experiment,
        deep_experiment=deep_experiment or None,
        study_run=study_run,
        deep_study_run=deep_study_run,
    )
    report = compose(
        judged.case,
        gather(store, judged.case, judged.experiment_ids),
        experiment=experiment,
        store=store.address,
        verdict_run=judged.verdict_run,
        made_at=datetime.now().astimezone(),
    )
    folder = output or Path("reports", experiment)
    files = write(report, folder)
    log_files(store, judged.verdict_run, files, folder, "report")
    reason = judged.case.verdict.reason
    click.echo(f"{report.headline}{f': {reason}' if reason else ''}")
    click.echo(f"next: {judged.case.verdict.next_step}")
    for path in files[:2]:
        click.echo(f"{path} ({path.stat().st_size / 1e3:,.0f} kB)")
    click.echo(f"recorded with run {judged.verdict_run}")
