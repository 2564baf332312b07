"""``fnostab run``: run a study."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from fnostab.cli.execution import RunOptions, execute, insist_on_results, show_dry_run
from fnostab.cli.options import (
    ARMS,
    CLUSTER,
    EPOCHS,
    EXPERIMENT,
    JOBS,
    LAUNCHER,
    OUTPUT,
    OUTPUT_FOLDER,
    PROFILE,
    SEEDS,
    SET,
    TRACKING_URI,
    parse_looks,
)
from fnostab.cli.run_options import run_options
from fnostab.errors import ConfigError, DecisionError, FnostabError
from fnostab.record.plurals import counted
from fnostab.show.console import Console, say
from fnostab.show.notifying import VARIABLE, Notifier
from fnostab.tasks.registry import CHAINS, load

if TYPE_CHECKING:
    from fnostab.decision import Stage
    from fnostab.launch.run import StudyRun
    from fnostab.record.trial import StudySpec
    from fnostab.tracking import Store


@click.command(
    "run",
    epilog="Example: fnostab run stage_a --seeds 10 --decide",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.argument("study")
@SEEDS
@ARMS
@PROFILE
@EPOCHS
@JOBS
@click.option("--lockstep", metavar="K", help="Train K seeds of an arm together in one process (docs/performance.md).")
@SET
@EXPERIMENT
@click.option(
    "--from",
    "from_experiment",
    metavar="EXPERIMENT",
    help="Run the arms that the newest verdict on EXPERIMENT asks for, with their settings from there.",
)
@click.option("--retry-oom", is_flag=True, help="Retry trials that ran out of memory.")
@click.option("--attempts", metavar="N", help="Give up a trial after N attempts without progress.  [default: 3]")
@click.option(
    "--sequential", metavar="LIST", help="Judge after these numbers of seeds, such as 10,20; decided arms stop."
)
@LAUNCHER
@CLUSTER
@click.option("--dry-run", is_flag=True, help="Show what would be started, and start nothing.")
@click.option("--decide", is_flag=True, help="Print the verdict at the end.")
@click.option(
    "--notify",
    multiple=True,
    metavar="URL",
    envvar=VARIABLE,
    help=f"Send the answer to this address of apprise; may be repeated. {VARIABLE} keeps it out of lists of processes.",
)
@OUTPUT
@TRACKING_URI
@run_options
def command(decide: bool, sequential: str | None, dry_run: bool, notify: tuple[str, ...], options: RunOptions) -> None:
    """Run STUDY: a built-in one (see `fnostab studies`) or the path of a YAML file.

    Started again, it finishes what is missing and repeats nothing; more seeds extend it. Any other
    --NAME VALUE is a setting, as with --set.

    STUDY can also be `strategy`, a chain of studies that ends with a report.
    """
    notifier = Notifier(notify)  # refuses a wrong address in a dry run too
    if dry_run:
        notifier = Notifier()
    run = load(CHAINS[options.study]) if options.study in CHAINS else run_and_report
    with notifier.of_failures(lambda: _name(options), lambda: _link(options)):
        run(options, decide=decide, sequential=sequential, dry_run=dry_run, notifier=notifier)


def _name(options: RunOptions) -> str:
    """Return the study's experiment; for a chain its name, and for a file that can't be read its path."""
    from fnostab.study.file import read_study_file

    try:
        return options.study if options.study in CHAINS else options.experiment or read_study_file(options.study).name
    except FnostabError:
        return options.study


def _link(options: RunOptions) -> str:
    """Write the line on the charts of a study that stopped; empty if nothing is recorded or the store is away."""
    from fnostab.tracking import existing_store, find_experiment

    try:
        store = existing_store(options.tracking_uri)
        return charts_line(store, find_experiment(store, _name(options)))
    except FnostabError:
        return ""


def _recorded(result: StudyRun) -> tuple[StudySpec, Stage]:
    from fnostab.report.stored_studies import stage_of
    from fnostab.tracking import find_experiment, newest_study

    experiment = find_experiment(result.store, result.experiment)
    record = newest_study(result.store, experiment, result.run_id)
    return record.spec, stage_of("a", result.store, experiment, record)


def run_and_report(
    options: RunOptions,
    *,
    decide: bool = False,
    sequential: str | None = None,
    dry_run: bool = False,
    notifier: Notifier | None = None,
) -> None:
    """Run a study or a part of it, print the verdict if asked, and name the next commands.

    A notifier sends the answer, and what a look decides; for that a verdict is recorded, as with ``decide``.

    Raises:
        FnostabError: the study could not be started, not all of it could be recorded, or a trial has no result.
    """
    console = Console()
    looks = parse_looks(sequential) if sequential else []
    if looks and options.from_experiment:
        raise ConfigError("--sequential decides which arms continue: leave out --from")
    if looks and options.seeds:
        raise ConfigError("--sequential sets the numbers of seeds: leave out --seeds")
    if dry_run:
        if looks:
            say(
                console, f"look 1 of {len(looks)}, {counted(looks[0], 'seed')} per arm; arms that it decides stop there"
            )
            options = replace(options, seeds=tuple(range(looks[0])), looks=tuple(looks))
        show_dry_run(options, console)
        return
    if looks:
        from fnostab.cli.looks import run_in_looks

        result = run_in_looks(looks, options, console, notifier)
    else:
        result = execute(options, console)
    said = _judge(result, options, console, shown=decide) if decide or notifier else []
    if notifier:
        notifier.answer = said
    from fnostab.report.stored_studies import oversights
    from fnostab.show.next_commands import judge_or_run
    from fnostab.tracking import find_experiment

    spec, stage = _recorded(result)
    if not decide:
        say(console, *oversights(result.store, spec, stage))
    if result.overwritten:
        say(console, result.overwritten)
    if not any(trial.finished for trial in result.trials):
        insist_on_results(result)  # raises: there are no curves to show and nothing to judge
    at = f" --tracking-uri {options.tracking_uri}" if options.tracking_uri else ""
    charts = charts_line(result.store, find_experiment(result.store, result.experiment))
    say(console, f"\n{charts}")
    commands = {"fnostab ui": "opens them: grad-norm curves of every trial"}
    words = judge_or_run(spec, stage.arms)
    if words[0] == "run":
        commands[shlex.join(["fnostab", *words, *_where(options)])] = "the other trials, which a verdict needs"
    elif decide:
        commands[f"fnostab report --experiment {result.experiment}"] = "the verdict with its figures, as one HTML file"
    else:
        commands[f"fnostab decide --experiment {result.experiment}"] = "the verdict"
    say(console, "\nnext:", *(f"  {line}{at}    # {meaning}" for line, meaning in commands.items()))
    insist_on_results(result)
    if notifier:
        notifier.send(f"fnostab: {result.experiment} has ended", *said, charts)


def _where(options: RunOptions) -> list[str]:
    """Write the options of a run that say where its trials run and are kept."""
    words = ["--output", str(options.output)] if options.output != OUTPUT_FOLDER else []
    words += ["--launcher", options.launcher] if options.launcher != "local" else []
    return words + (["--cluster", options.cluster] if options.cluster else [])


def _judge(result: StudyRun, options: RunOptions, console: Console, *, shown: bool) -> list[str]:
    """Judge and record the study that was run, print that if it is to be ``shown``, and return it in lines."""
    from fnostab.cli.decide import decide_and_print
    from fnostab.report.named_studies import StoredStudies
    from fnostab.report.stored_studies import judge_and_record
    from fnostab.report.verdict import in_lines

    studies = StoredStudies(result.experiment, study_run=result.run_id, tracking_uri=options.tracking_uri)
    try:
        if shown:
            return in_lines(decide_and_print(result.store, studies, console=console))
        return in_lines(judge_and_record(result.store, studies).case)
    except DecisionError as error:  # as without control, if only some arms were asked for: the run itself is fine
        said = f"no verdict yet: {error}"
        if shown:
            say(console, said)
        return [said]


def charts_line(store: Store, experiment_id: str) -> str:
    """Write the line with the address of the charts of an experiment's newest study."""
    from fnostab.tracking import charts_address

    needs = "" if store.uri.startswith("http") else "  (while `fnostab ui` runs)"
    return f"charts: {charts_address(store, experiment_id)}{needs}"
