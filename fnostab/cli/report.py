"""``fnostab report``: write the verdict with its figures as HTML and Markdown."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fnostab.cli.options import NAMED, RUNS, TRACKING_URI, insist_on_one, store_to_read, stored_studies
from fnostab.cli.printing import echo

if TYPE_CHECKING:
    from fnostab.report.named_studies import StoredStudies


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
    verdict_run, store = None, None
    if runs is not None:
        from fnostab.cli.decide_runs import judge_runs

        found = judge_runs(runs, tracking_uri)
        case, name, source = found.case, runs.stem, found.source
    elif stored is not None:
        from fnostab.report.stored_studies import judge_and_record

        store = store_to_read(tracking_uri)
        judged = judge_and_record(store, stored)
        case, name, source, verdict_run = judged.case, stored.experiment, store.address, judged.verdict_run
    from fnostab.report.content import compose  # after judging: it imports what draws, which is slow and makes a cache
    from fnostab.report.documents import write
    from fnostab.report.evidence import Evidence, gather, gather_of_runs

    if store is not None:
        evidence = gather(store, case, judged.experiment_ids)
    elif found.store is not None:
        evidence = gather_of_runs(found.store, case, found.history, found.experiment_ids)
    else:
        evidence = Evidence(epochs=False)
    now = datetime.now().astimezone()
    report = compose(case, evidence, experiment=name, store=source, verdict_run=verdict_run, made_at=now)
    folder = output or Path("reports", name)
    files = write(report, folder)
    echo(f"{report.verdict.headline}{f': {report.verdict.reason}' if report.verdict.reason else ''}")
    echo(f"next: {report.verdict.next_step}")
    for path in files[:2]:
        echo(f"{path} ({path.stat().st_size / 1e3:,.0f} kB)")
    if store is not None and verdict_run is not None:
        from fnostab.tracking.read.histories import log_files

        log_files(store, verdict_run, files, folder, "report")
        echo(f"recorded with run {verdict_run}")
