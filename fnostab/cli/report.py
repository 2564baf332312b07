"""``fnostab report``: write the verdict with its figures as HTML and Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fnostab.cli.options import NAMED, RUNS, TRACKING_URI, insist_on_one, store_to_read, stored_studies
from fnostab.cli.printing import echo

if TYPE_CHECKING:
    from fnostab.report.content import Report
    from fnostab.report.stored import StoredStudies
    from fnostab.tracking import Store


@click.command("report", epilog="Example: fnostab report stage_a")
@NAMED
@stored_studies
@RUNS
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write to.  [default: reports/EXPERIMENT, or reports/FILE]",
)
@TRACKING_URI
def command(stored: StoredStudies | None, runs: Path | None, output: Path | None, tracking_uri: str | None) -> None:
    """Judge EXPERIMENT as `fnostab decide` does, and write the verdict with its evidence as a report.

    report.html is a single self-contained file; report.md has the same text, with its pictures in separate files.
    Both are added to the verdict's run in MLflow, except with --runs, which writes nothing to MLflow.
    """
    insist_on_one({"--experiment": stored, "--runs FILE.yaml": runs}, tracking_uri)
    if runs is not None:
        report = _of_runs(runs, tracking_uri)
        files = _write(report, output or Path("reports", runs.stem))
    elif stored is not None:
        store = store_to_read(tracking_uri)
        report = _of_store(store, stored)
        folder = output or Path("reports", stored.experiment)
        files = _write(report, folder)
        from fnostab.tracking.read.histories import log_files

        log_files(store, report.verdict_run or "", files, folder, "report")
    echo(f"{report.verdict.headline}{f': {report.verdict.reason}' if report.verdict.reason else ''}")
    echo(f"next: {report.verdict.next_step}")
    for path in files[:2]:
        echo(f"{path} ({path.stat().st_size / 1e3:,.0f} kB)")
    if report.verdict_run:
        echo(f"recorded with run {report.verdict_run}")


def _write(report: Report, folder: Path) -> list[Path]:
    from fnostab.report.documents import write  # after judging: it imports what draws, which is slow

    return write(report, folder)


def _of_store(store: Store, stored: StoredStudies) -> Report:
    from datetime import datetime

    from fnostab.report.content import compose
    from fnostab.report.evidence import gather
    from fnostab.report.stored_studies import judge_and_record

    judged = judge_and_record(store, stored)
    return compose(
        judged.case,
        gather(store, judged.case, judged.experiment_ids),
        experiment=stored.experiment,
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
