"""``fnostab decide``: an answer for every arm, and the verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fnostab.cli.options import NAMED, RUNS, TRACKING_URI, insist_on_one, store_to_read, stored_studies
from fnostab.cli.printing import echo
from fnostab.errors import ConfigError, TrackingError
from fnostab.report.named_studies import StoredStudies
from fnostab.show.console import Console, say
from fnostab.tasks.registry import has_hook, hook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fnostab.report.case import Case
    from fnostab.tracking import Store


@click.command("decide", epilog="Example: fnostab decide stage_a")
@NAMED
@stored_studies
@click.option("--table", type=click.Path(path_type=Path), help="A CSV file of trials instead of MLflow.")
@RUNS
@click.option("--study", help="With --table: the study (name or file) whose arms and rules apply.")
@click.option("--evidence", is_flag=True, help="Print criteria, tests, intervals and run ids as well.")
@click.option("--exit-code", is_flag=True, help="Set the exit status by the answer, as listed above.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("--apply", is_flag=True, help="Make the choice of GOLD or SILVER the default; see `fnostab policy`.")
@click.option("--force", is_flag=True, help="With --apply: even if it could be luck.")
@TRACKING_URI
@click.pass_context
def command(
    context: click.Context,
    /,
    stored: StoredStudies | None,
    table: Path | None,
    runs: Path | None,
    study: str | None,
    evidence: bool,
    exit_code: bool,
    as_json: bool,
    apply: bool,
    force: bool,
    tracking_uri: str | None,
) -> None:
    """Answer for every arm of EXPERIMENT whether it helps or harms, and record the answer in MLflow as a run.

    A study with roles has a verdict as well. GOLD: the architecture helps at both depths. SILVER: it is not shown to
    help, but clipping helps. PIVOT: neither helps at depth. INCONCLUSIVE: what is open. `leaning` marks what could be
    luck.

    It ends with the next step, and its command where there is one.

    \b
    --exit-code   with roles                  without
      0           GOLD                        an arm helps
      10          SILVER                      one helps, at a cost
      20          PIVOT                       none helps, and that is shown
      30          anything else, or it could be luck

    A table needs the columns arm, seed, outcome and val_loss, and study.control if its control has another name than
    control; `fnostab export` writes one.
    """  # noqa: D301 (click's mark of a table)
    insist_on_one({"--experiment": stored, "--table FILE.csv": table, "--runs FILE.yaml": runs}, tracking_uri)
    if apply and stored is None:
        raise ConfigError("--apply needs --experiment: a table holds no settings and no networks")
    if study is not None and table is None:
        raise ConfigError("--study needs --table: an experiment and a file of runs have their own rules")
    console = Console()
    if table is not None:
        from fnostab.record.table_file import read_table
        from fnostab.report.decide_table import decide
        from fnostab.study.file import read_study_file

        trials = read_table(table)
        file = None if study is None else read_study_file(study).with_defaults()
        case = decide(trials, file, asked_as=study)
        show(case, console, as_json=as_json, evidence=evidence)
    elif runs is not None:
        from fnostab.cli.decide_runs import judge_runs

        case = judge_runs(runs, tracking_uri).case
        show(case, console, as_json=as_json, evidence=evidence)
    elif stored is not None:
        store = store_to_read(tracking_uri)
        case = decide_and_print(
            store, stored, as_json=as_json, evidence=evidence, apply=apply, force=force, console=console
        )
    if exit_code:
        context.exit(case.verdict.exit_code)


def decide_and_print(
    store: Store,
    stored: StoredStudies,
    *,
    as_json: bool = False,
    evidence: bool = False,
    apply: bool = False,
    force: bool = False,
    console: Console,
) -> Case:
    """Judge the studies that ``stored`` names, record the verdict in the store, print it, and apply it if asked.

    A verdict that can't be recorded is printed too.

    Raises:
        FnostabError: an experiment, study or control arm is missing, the store does not answer or can't be written, or
            the verdict is not to be applied.
    """
    from fnostab.report.stored_studies import judge, record_verdict

    if apply:
        _check_applicable(store, stored)
    case, found = judge(store, stored)
    try:
        judged = record_verdict(store, case, found)
    except TrackingError as error:
        show(case, console, as_json=as_json, evidence=evidence)
        raise TrackingError(f"the verdict is not recorded: {error}") from error
    extra = {"study_runs": judged.study_runs, "verdict_run": judged.verdict_run}
    show(judged.case, console, as_json=as_json, evidence=evidence, extra=extra)
    if not as_json:
        console.print(f"recorded as run {judged.verdict_run}", highlight=False, style="dim")
    verdict, task = judged.case.verdict, judged.case.studies["a"].task
    aside = Console(stderr=True) if as_json else console
    if apply or (evidence and verdict.winner is not None and has_hook(task, "apply")):
        act_on = hook(task, "apply")
        if act_on is not None:
            act_on(judged, store, apply=apply, force=force, console=aside)
    if not apply and verdict.winner is not None and verdict.supported and has_hook(task, "apply"):
        say(aside, f"to make it the default: fnostab decide {stored.as_options} --apply")
    return judged.case


def _check_applicable(store: Store, stored: StoredStudies) -> None:
    """Refuse to apply a verdict on a task without defaults, before the verdict is recorded.

    Raises:
        FnostabError: the task has no defaults, an experiment or study is missing, or the store does not answer.
    """
    from fnostab.tracking import find_experiment, newest_study

    name, run = stored.places["a"]
    task = newest_study(store, find_experiment(store, name), run).spec.task
    if not has_hook(task, "apply"):
        raise ConfigError(f"--apply: task {task} has no defaults that a verdict could set")


def show(
    case: Case, console: Console, *, as_json: bool, evidence: bool = False, extra: Mapping[str, Any] | None = None
) -> None:
    """Print a case as text, or as JSON."""
    from fnostab.report.verdict import print_case, to_json

    if as_json:
        echo(json.dumps({**to_json(case), **(extra or {})}, indent=2))
        return
    print_case(case, console, evidence=evidence)
