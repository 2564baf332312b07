"""``fnostab decide``: an answer for every arm, and the verdict."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fnostab.cli.console import Console
from fnostab.cli.options import TRACKING_URI, store_to_read
from fnostab.cli.printing import echo
from fnostab.cli.stress import with_stress
from fnostab.errors import ConfigError
from fnostab.tasks.registry import has_hook, hook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fnostab.decision import Stage
    from fnostab.decision.commands import Source
    from fnostab.report.verdict import Case
    from fnostab.tracking import Store
    from fnostab.tracking.read.studies import StudyRecord

__all__ = ["Judged", "decide_and_print", "judge", "judge_and_record", "show", "stage_of"]


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
) -> Judged:
    """Judge and record; see `command` for the arguments.

    Raises:
        FnostabError: an experiment, study or control arm is missing, or the store does not answer.
    """
    from fnostab.report.setting_values import with_along
    from fnostab.report.verdict import headline, to_json, to_markdown
    from fnostab.tracking import find_experiment, log_verdict, looks_before, newest_study

    wanted = {"a": (experiment, study_run)}
    if deep_experiment:
        wanted["b"] = (deep_experiment, deep_study_run)
    experiment_ids = {stage: find_experiment(store, name) for stage, (name, _) in wanted.items()}
    records = {stage: newest_study(store, experiment_ids[stage], run) for stage, (_, run) in wanted.items()}
    stages = {s: stage_of(s, store, experiment_ids[s], record) for s, record in records.items()}
    study_runs = {stage: record.run_id for stage, record in records.items()}
    look = 1 + looks_before(store, experiment_ids["a"], study_runs["a"], seeds=_seeds(stages["a"]))
    studies = {stage: record.spec for stage, record in records.items()}
    lines = [_judged_line(s, record, stages[s], wanted[s][0]) for s, record in records.items()]
    case = with_along(with_stress(judge(stages, studies, source=_source_of(studies, wanted), judged=lines, look=look)))
    payload = {**to_json(case), "study_runs": study_runs, "seeds": _seeds(stages["a"])}
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


def stage_of(name: str, store: Store, experiment_id: str, record: StudyRecord) -> Stage:
    """The trials of a study in the store."""
    from fnostab.decision import Stage
    from fnostab.tracking import trial_rows

    rows, asked = trial_rows(store, experiment_id, record), record.spec.seeds
    there = {(row.arm, row.seed) for row in rows}
    missing = {arm: tuple(seed for seed in seeds if (arm, seed) not in there) for arm, seeds in asked.items()}
    return Stage(name, tuple(rows), missing if asked else None)


def judge(
    stages: Mapping[str, Stage],
    studies: Mapping[str, Any],
    *,
    source: Source,
    judged: list[str] | None = None,
    look: int | None = None,
) -> Case:
    """Answer and conclude.

    Args:
        stages: the trials, by name.
        studies: by stage, anything with the attributes of a `StudySpec`; that of Stage A gives roles and rules.
        source: where they are from, for the next command.
        judged: a line for each stage on what is judged.
        look: which look at the study this is; by default as it says itself.
    """
    from fnostab.decision import Roles, Rules, decide
    from fnostab.decision.commands import command_of
    from fnostab.report.verdict import Case

    study = studies["a"]
    verdict = decide(Roles.of(study), stages["a"], stages.get("b"), rules=Rules.of(study, look=look))
    command = command_of(verdict.next, source)
    gone = [
        f"{stage_title(name, study)}{arm} takes no part: none of its {len(seeds)} trials has a run"
        for name, stage in stages.items()
        for arm, seeds in stage.gone.items()
    ]
    return Case(verdict, tuple(stages.values()), studies, (*(judged or ()), *gone), command)


def show(
    case: Case, console: Console, *, as_json: bool, evidence: bool = False, extra: Mapping[str, Any] | None = None
) -> None:
    """Print a case: for people, or as JSON."""
    from fnostab.report.stress import render_stress
    from fnostab.report.verdict import render, to_json

    if as_json:
        echo(json.dumps({**to_json(case), **(extra or {})}, indent=2))
        return
    special = case.special.render(case) if case.special is not None else None
    if case.stress is not None:
        special = render_stress(case.stress)
    console.print(special or render(case, evidence=evidence), highlight=False, soft_wrap=special is not None)
    if case.command and special is None:
        console.print(f"  {case.command}\n", style="bold", highlight=False, markup=False, soft_wrap=True)


def _source_of(studies: Mapping[str, Any], wanted: Mapping[str, tuple[str, str | None]]) -> Source:
    from fnostab.decision.commands import Place, Source

    places = {}
    for stage, study in studies.items():
        given = [f"{name}={json.dumps(value)}" for name, value in study.overrides.items()]
        options = (*(("--profile", study.profile) if study.profile else ()), *(w for g in given for w in ("--set", g)))
        places[stage] = Place(getattr(study, "asked_as", "") or study.name, wanted[stage][0], options)
    return Source(places, studies["a"].follow_up)


def _judged_line(stage: str, record: StudyRecord, trials: Stage, experiment: str) -> str:
    started = datetime.fromtimestamp(record.start_ms / 1000).astimezone()
    others = getattr(record, "others", 0)
    more = f"; {others} other stud{'y' if others == 1 else 'ies'} in this experiment (--study-run)" if others else ""
    return (
        f"{stage_title(stage, record.spec)}{experiment}, study {record.spec.name} of {started:%Y-%m-%d %H:%M}, "
        f"{len(trials.trials)} trials, run {record.run_id}{more}"
    )


def stage_title(stage: str, study: Any) -> str:
    """As in "Stage A: "; empty of a study that has one stage."""
    return f"Stage {stage.upper()}: " if study.roles or stage != "a" else ""


def _seeds(stage: Stage) -> int:
    """Trials of the arm that has the most."""
    return max((len(stage.arm(arm)) for arm in stage.arms), default=0)
