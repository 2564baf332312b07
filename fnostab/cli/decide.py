"""``fnostab decide``: an answer for every arm, and the verdict."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from fnostab.cli.judging import judge_and_record
from fnostab.cli.options import TRACKING_URI, store_to_read
from fnostab.errors import ConfigError
from fnostab.tasks.registry import has_hook, hook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fnostab.report.verdict import Case
    from fnostab.tracking import Store

__all__ = ["decide_and_print", "show"]


@click.command("decide")
@click.option("--experiment", help="MLflow experiment of the study, or of its Stage A.")
@click.option("--deep-experiment", help="MLflow experiment of Stage B, the deep stress test.")
@click.option("--study-run", help="Run id of the study to judge.  [default: the newest of the experiment]")
@click.option("--deep-study-run", help="The same for Stage B.")
@click.option("--table", type=click.Path(path_type=Path), help="A CSV file of trials instead of MLflow.")
@click.option("--runs", type=click.Path(path_type=Path), help="A YAML file that maps runs of your own to trials.")
@click.option("--study", help="With --table: the study (name or file) whose arms and rules apply.")
@click.option("--evidence", is_flag=True, help="Print criteria, tests, intervals and run ids as well.")
@click.option("--exit-code", is_flag=True, help="Exit with a status that says what came out, as above.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("--apply", is_flag=True, help="Make what GOLD or SILVER chose the default; see `fnostab policy`.")
@click.option("--force", is_flag=True, help="With --apply: even if it could be luck.")
@TRACKING_URI
@click.pass_context
def command(
    context: click.Context,
    /,
    experiment: str | None,
    table: Path | None,
    runs: Path | None,
    study: str | None,
    evidence: bool,
    exit_code: bool,
    as_json: bool,
    tracking_uri: str | None,
    **options: Any,
) -> None:
    """Say of every arm of a study whether it helps, harms or does not help, and record that in MLflow as a run.

    A study with roles has a verdict as well. GOLD: the architecture is the cure. SILVER: it is not shown to help, but
    clipping helps. PIVOT: neither helps at depth. INCONCLUSIVE: what is open. `leaning` marks what could be luck.

    The last line is the next step, as a command.

    \b
    --exit-code   with roles                  without
      0           GOLD                        an arm helps
      10          SILVER                      one helps, at a cost
      20          PIVOT                       none helps, and that is shown
      30          anything else, or it could be luck

    A table has the columns stage (a or b), arm, seed, outcome, val_loss, failure_step, last_step; `fnostab export`
    writes one.
    """  # noqa: D301 (click's mark of a table)
    if sum(each is not None for each in (table, experiment, runs)) != 1:
        raise ConfigError("say what to judge: --experiment NAME, --table FILE.csv, or --runs FILE.yaml")
    if options["apply"] and experiment is None:
        raise ConfigError("--apply needs --experiment: a table holds no settings and no networks")
    console = Console()
    if table is not None:
        from fnostab.cli.decide_table import case_of_table

        case = case_of_table(table, study)
        show(case, console, as_json=as_json, evidence=evidence)
    elif runs is not None:
        from fnostab.cli.decide_runs import judge_runs

        case = judge_runs(runs, tracking_uri).case
        show(case, console, as_json=as_json, evidence=evidence)
    else:
        store = store_to_read(tracking_uri)
        shown: dict[str, Any] = {"as_json": as_json, "evidence": evidence, "console": console}
        case = decide_and_print(store, experiment or "", **shown, **options)
    if exit_code:
        context.exit(case.verdict.exit_code)


def decide_and_print(
    store: Store,
    experiment: str,
    *,
    deep_experiment: str | None = None,
    study_run: str | None = None,
    deep_study_run: str | None = None,
    as_json: bool = False,
    evidence: bool = False,
    apply: bool = False,
    force: bool = False,
    console: Console,
) -> Case:
    """Judge, record, print, and act if asked; see `command` for the arguments.

    Raises:
        FnostabError: an experiment, study or control arm is missing, the store does not answer, or
            the verdict is not to be applied.
    """
    judged = judge_and_record(
        store,
        experiment,
        deep_experiment=deep_experiment or None,
        study_run=study_run,
        deep_study_run=deep_study_run,
    )
    extra = {"study_runs": judged.study_runs, "verdict_run": judged.verdict_run}
    show(judged.case, console, as_json=as_json, evidence=evidence, extra=extra)
    if not as_json:
        console.print(f"recorded as run {judged.verdict_run}", highlight=False, style="dim")
    verdict, task = judged.case.verdict, judged.case.studies["a"].task
    aside = Console(stderr=True) if as_json else console
    if apply or (evidence and verdict.winner is not None and has_hook(task, "apply")):
        act_on = hook(task, "apply")
        if act_on is None:
            raise ConfigError(f"--apply: task {task} has no defaults that a verdict could set")
        act_on(judged, store, apply=apply, force=force, console=aside)
    if not apply and verdict.winner is not None and verdict.supported and has_hook(task, "apply"):
        options = {
            "experiment": experiment,
            "deep-experiment": deep_experiment,
            "study-run": study_run,
            "deep-study-run": deep_study_run,
        }
        words = [word for name, value in options.items() if value for word in (f"--{name}", value)]
        line = shlex.join(["fnostab", "decide", *words, "--apply"])
        aside.print(f"apply it: {line}", highlight=False, markup=False, soft_wrap=True)
    return judged.case


def show(
    case: Case, console: Console, *, as_json: bool, evidence: bool = False, extra: Mapping[str, Any] | None = None
) -> None:
    """Print a case: for people, or as JSON."""
    from fnostab.report.stress import render_stress
    from fnostab.report.verdict import render, to_json

    if as_json:
        click.echo(json.dumps({**to_json(case), **(extra or {})}, indent=2))
        return
    special = case.special.render(case) if case.special is not None else None
    if case.stress is not None:
        special = render_stress(case.stress)
    console.print(special or render(case, evidence=evidence), highlight=False, soft_wrap=special is not None)
    if case.command and special is None:
        console.print(f"  {case.command}\n", style="bold", highlight=False, markup=False, soft_wrap=True)
