"""``fnostab decide``: the verdict."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click
from rich.console import Console

from fnostab.cli.options import TRACKING_URI

if TYPE_CHECKING:
    from fnostab.tracking import Store


@click.command("decide")
@click.option("--experiment", required=True, help="MLflow experiment of Stage A.")
@click.option("--deep-experiment", help="MLflow experiment of Stage B, the deep stress test.")
@click.option("--study-run", help="Run id of the study to judge.  [default: the newest of the experiment]")
@click.option("--deep-study-run", help="The same for Stage B.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@TRACKING_URI
def command(
    experiment: str,
    deep_experiment: str | None,
    study_run: str | None,
    deep_study_run: str | None,
    as_json: bool,
    tracking_uri: str | None,
) -> None:
    """Judge the trials of an experiment, and record the verdict in MLflow as a run.

    GOLD: the architecture is the cure. SILVER: it failed, but clipping helps. PIVOT: neither helps at
    depth. INCONCLUSIVE: which criterion blocks, and what to run next.
    """
    from fnostab.tracking import open_store

    decide_and_print(
        open_store(tracking_uri),
        experiment,
        deep_experiment=deep_experiment or None,
        study_run=study_run,
        deep_study_run=deep_study_run,
        as_json=as_json,
        console=Console(),
    )


def decide_and_print(
    store: Store,
    experiment: str,
    *,
    deep_experiment: str | None = None,
    study_run: str | None = None,
    deep_study_run: str | None = None,
    as_json: bool = False,
    console: Console,
) -> None:
    """Judge, record and print; see `command` for the arguments.

    Raises:
        FnostabError: an experiment, study or control arm is missing, or the store does not answer.
    """
    from fnostab.decision import Roles, Stage, decide
    from fnostab.report.verdict import print_verdict, to_json, to_markdown
    from fnostab.tracking import find_experiment, log_verdict, newest_study, trial_rows

    wanted = {"a": (experiment, study_run)}
    if deep_experiment:
        wanted["b"] = (deep_experiment, deep_study_run)
    experiment_ids = {stage: find_experiment(store, name) for stage, (name, _) in wanted.items()}
    records = {stage: newest_study(store, experiment_ids[stage], run) for stage, (_, run) in wanted.items()}
    stages = [
        Stage(stage, tuple(trial_rows(store, experiment_ids[stage], record))) for stage, record in records.items()
    ]
    studies = {stage: record.spec for stage, record in records.items()}
    first = studies["a"]
    roles = Roles(first.control, first.roles.get("architecture"), first.roles.get("clipping"))
    verdict = decide(roles, *stages)

    payload = to_json(verdict, stages, studies)
    payload["study_runs"] = {stage: record.run_id for stage, record in records.items()}
    markdown = to_markdown(verdict, stages, studies)
    runs = [record.run_id for record in records.values()]
    verdict_run = log_verdict(store, experiment_ids["a"], runs, str(verdict.name), payload, markdown)
    payload["verdict_run"] = verdict_run
    if as_json:
        json.dump(payload, sys.stdout, indent=2)
        click.echo()
        return
    for stage, record in records.items():
        console.print(f"Stage {stage.upper()}: study run {record.run_id}, the one judged", highlight=False)
    print_verdict(console, verdict, stages, studies)
    console.print(f"recorded as run {verdict_run}", highlight=False, style="dim")
