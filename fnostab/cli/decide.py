"""``fnostab decide``: the verdict."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from fnostab.cli.options import TRACKING_URI, store_to_read
from fnostab.cli.stress import with_stress
from fnostab.errors import ConfigError
from fnostab.ptychography.cli.depths import with_depths

if TYPE_CHECKING:
    from fnostab.decision import Stage
    from fnostab.record.trial import StudySpec
    from fnostab.report.verdict import Case
    from fnostab.study.study import StudyFile
    from fnostab.tracking import Store

EXIT_CODES = {"GOLD": 0, "SILVER": 10, "PIVOT": 20, "INCONCLUSIVE": 30}


@click.command("decide")
@click.option("--experiment", help="MLflow experiment of Stage A.")
@click.option("--deep-experiment", help="MLflow experiment of Stage B, the deep stress test.")
@click.option("--study-run", help="Run id of the study to judge.  [default: the newest of the experiment]")
@click.option("--deep-study-run", help="The same for Stage B.")
@click.option("--table", type=click.Path(path_type=Path), help="A CSV file of trials instead of MLflow.")
@click.option("--study", help="With --table: the study (name or file) whose arms and rules apply.  [default: stage_a]")
@click.option("--require-support", is_flag=True, help="INCONCLUSIVE unless its tests support the verdict.")
@click.option("--exit-code", is_flag=True, help="Exit with 0 GOLD, 10 SILVER, 20 PIVOT, 30 INCONCLUSIVE.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("--apply", is_flag=True, help="Make what GOLD or SILVER chose the default; see `fnostab policy`.")
@click.option("--force", is_flag=True, help="With --apply: even if it is unsupported, or of the small profile.")
@TRACKING_URI
@click.pass_context
def command(
    context: click.Context,
    /,
    experiment: str | None,
    deep_experiment: str | None,
    study_run: str | None,
    deep_study_run: str | None,
    table: Path | None,
    study: str | None,
    require_support: bool,
    exit_code: bool,
    as_json: bool,
    apply: bool,
    force: bool,
    tracking_uri: str | None,
) -> None:
    """Judge the trials of an experiment, and record the verdict in MLflow as a run.

    GOLD: the architecture is the cure. SILVER: it failed, but clipping helps. PIVOT: neither helps at
    depth. INCONCLUSIVE: which criterion blocks, and what to run next. Of crash_hunt, or another study whose
    arms differ only in depth: the failure rate at each depth, and the lowest depth that fails. Of stress_lr, or another
    stress study: how far each arm bears the setting that it turns.

    A table has the columns stage (a or b), arm, seed, outcome, val_loss, failure_step, last_step.
    """
    if (table is None) == (experiment is None):
        raise ConfigError("say what to judge: --experiment NAME, or --table FILE.csv")
    if apply and table is not None:
        raise ConfigError("--apply needs --experiment: a table holds no settings and no networks")
    console = Console()
    if table is not None:
        case = _case_of_table(table, study or "stage_a", require_support)
        show(case, console, as_json=as_json)
    else:
        case = decide_and_print(
            store_to_read(tracking_uri),
            experiment or "",
            deep_experiment=deep_experiment or None,
            study_run=study_run,
            deep_study_run=deep_study_run,
            require_support=require_support,
            as_json=as_json,
            apply=apply,
            force=force,
            console=console,
        )
    if exit_code:
        context.exit(EXIT_CODES[case.verdict.name])


def decide_and_print(
    store: Store,
    experiment: str,
    *,
    deep_experiment: str | None = None,
    study_run: str | None = None,
    deep_study_run: str | None = None,
    require_support: bool = False,
    as_json: bool = False,
    apply: bool = False,
    force: bool = False,
    console: Console,
) -> Case:
    """Judge, record, print, and act if asked; see `command` for the arguments.

    Raises:
        FnostabError: an experiment, study or control arm is missing, the store does not answer, or
            the verdict is not to be applied.
    """
    from fnostab.ptychography.cli.policy import act_on

    judged = judge_and_record(
        store,
        experiment,
        deep_experiment=deep_experiment,
        study_run=study_run,
        deep_study_run=deep_study_run,
        require_support=require_support,
    )
    case, study_runs, verdict_run = judged.case, judged.study_runs, judged.verdict_run
    if not as_json:
        for stage, run_id in study_runs.items():
            console.print(f"Stage {stage.upper()}: judging study run {run_id}", highlight=False)
    show(case, console, as_json=as_json, extra={"study_runs": study_runs, "verdict_run": verdict_run})
    if not as_json:
        console.print(f"recorded as run {verdict_run}", highlight=False, style="dim")
    act_on(judged, store, apply=apply, force=force, console=Console(stderr=True) if as_json else console)
    return case


@dataclass(frozen=True)
class Judged:
    """A verdict that is recorded: experiment ids and study runs by stage, and the verdict's own run."""

    case: Case
    experiment_ids: dict[str, str]
    study_runs: dict[str, str]
    verdict_run: str


def judge_and_record(
    store: Store,
    experiment: str,
    *,
    deep_experiment: str | None = None,
    study_run: str | None = None,
    deep_study_run: str | None = None,
    require_support: bool = False,
) -> Judged:
    """Judge and record; see `command` for the arguments.

    Raises:
        FnostabError: an experiment, study or control arm is missing, or the store does not answer.
    """
    from fnostab.decision import Stage
    from fnostab.report.verdict import headline, to_json, to_markdown
    from fnostab.tracking import find_experiment, log_verdict, newest_study, trial_rows

    wanted = {"a": (experiment, study_run)}
    if deep_experiment:
        wanted["b"] = (deep_experiment, deep_study_run)
    experiment_ids = {stage: find_experiment(store, name) for stage, (name, _) in wanted.items()}
    records = {stage: newest_study(store, experiment_ids[stage], run) for stage, (_, run) in wanted.items()}
    stages = {s: Stage(s, tuple(trial_rows(store, experiment_ids[s], record))) for s, record in records.items()}
    studies = {stage: record.spec for stage, record in records.items()}
    case = _judge(stages, studies["a"], studies, require_support)
    study_runs = {stage: record.run_id for stage, record in records.items()}
    payload = {**to_json(case), "study_runs": study_runs}
    verdict_run = log_verdict(
        store,
        experiment_ids["a"],
        list(study_runs.values()),
        headline(case.verdict),
        payload,
        to_markdown(case),
        outcomes={run_id: stages[stage].outcomes for stage, run_id in study_runs.items()},
    )
    return Judged(case, experiment_ids, study_runs, verdict_run)


def show(case: Case, console: Console, *, as_json: bool, extra: dict[str, object] | None = None) -> None:
    """Print a case as tables or as JSON."""
    from fnostab.ptychography.report.depths import render_depths
    from fnostab.report.stress import render_stress
    from fnostab.report.verdict import render, to_json

    if as_json:
        click.echo(json.dumps({**to_json(case), **(extra or {})}, indent=2))
    else:
        special = render_depths(case, case.depths) if case.depths is not None else None
        if case.stress is not None:
            special = render_stress(case.stress)
        console.print(special or render(case), highlight=False, soft_wrap=special is not None)


def _case_of_table(path: Path, study_name: str, require_support: bool) -> Case:
    from fnostab.decision import Stage
    from fnostab.record.table import read_table
    from fnostab.study.study import read_study_file

    stages = {name: Stage(name, tuple(rows)) for name, rows in sorted(read_table(path).items())}
    return _judge(stages, read_study_file(study_name), {}, require_support)


def _judge(
    stages: dict[str, Stage], study: StudyFile | StudySpec, studies: dict[str, StudySpec], require_support: bool
) -> Case:
    from fnostab.decision import Roles, Rules, assess, decide
    from fnostab.report.verdict import Case

    roles = Roles(study.control, study.roles.get("architecture"), study.roles.get("clipping"))
    higher = study.metric is not None and study.metric.higher_is_better
    rules = Rules(alpha=study.alpha, loss_margin=1 + (study.margin or 0.0), higher_is_better=higher)
    verdict = decide(roles, stages["a"], stages.get("b"), rules=rules, require_support=require_support)
    case = Case(verdict, assess(roles, stages, rules), tuple(stages.values()), studies)
    return with_stress(with_depths(case))
