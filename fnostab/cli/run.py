"""``fnostab run``: run a study."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fnostab.cli.execution import RunOptions, execute, insist_on_results, run_options, show_dry_run
from fnostab.cli.options import (
    ARMS,
    CLUSTER,
    EPOCHS,
    EXPERIMENT,
    JOBS,
    LAUNCHER,
    OUTPUT,
    PROFILE,
    SEEDS,
    SET,
    TRACKING_URI,
    parse_looks,
)
from fnostab.errors import ConfigError, DecisionError
from fnostab.show.console import Console, say
from fnostab.tasks.registry import CHAINS, load

if TYPE_CHECKING:
    from fnostab.launch.run import StudyRun


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
@OUTPUT
@TRACKING_URI
@run_options
def command(decide: bool, sequential: str | None, dry_run: bool, options: RunOptions) -> None:
    """Run STUDY: a built-in one (see `fnostab studies`) or the path of a YAML file.

    Started again, it finishes what is missing and repeats nothing; more seeds extend it. Any other
    --NAME VALUE is a setting, as with --set.

    STUDY can also be `strategy`, a chain of studies that ends with a report.
    """
    run = load(CHAINS[options.study]) if options.study in CHAINS else run_and_report
    run(options, decide=decide, sequential=sequential, dry_run=dry_run)


def _oversights(result: StudyRun) -> list[str]:
    from fnostab.report.judging import oversights, stage_of
    from fnostab.tracking import find_experiment, newest_study

    experiment = find_experiment(result.store, result.experiment)
    record = newest_study(result.store, experiment, result.run_id)
    return oversights(result.store, record.spec, stage_of("a", result.store, experiment, record))


def run_and_report(
    options: RunOptions, *, decide: bool = False, sequential: str | None = None, dry_run: bool = False
) -> None:
    """Run a study or a part of it, print the verdict if asked, and name the next commands.

    Args:
        options: the study, and what is to be run of it.
        decide: print the verdict.
        sequential: seeds per arm at which to look, as in "10,20".
        dry_run: only show what would be started.

    Raises:
        FnostabError: it could not be started, not all of it could be recorded, or a trial came to no result.
    """
    console = Console()
    if dry_run:
        show_dry_run(options, console)
        return
    if sequential:
        from fnostab.cli.looks import run_in_looks

        if options.from_experiment:
            raise ConfigError("--sequential decides by itself which arms go on: leave out --from")
        result = run_in_looks(parse_looks(sequential), options, console)
    else:
        _, result = execute(options, console)
    if decide:
        from fnostab.cli.decide import decide_and_print
        from fnostab.report.judging import StoredStudies

        try:
            studies = StoredStudies(result.experiment, study_run=result.run_id)
            decide_and_print(result.store, studies, console=console)
        except DecisionError as error:  # only some arms were asked for: what was to be run has run
            say(console, f"no verdict yet: {error}")
    else:
        say(console, *_oversights(result))
    if result.overwritten:
        say(console, result.overwritten)
    if any(trial.finished for trial in result.trials):
        _say_what_is_next(console, result, options, decide=decide)
    insist_on_results(result)


def _say_what_is_next(console: Console, result: StudyRun, options: RunOptions, *, decide: bool) -> None:
    from fnostab.tracking import charts_address, find_experiment

    at = f" --tracking-uri {options.tracking_uri}" if options.tracking_uri else ""
    charts = charts_address(result.store, find_experiment(result.store, result.experiment))
    needs = "" if result.store.uri.startswith("http") else "  (while `fnostab ui` runs)"
    say(console, f"\ncharts: {charts}{needs}")
    commands = {"fnostab ui": "opens them: grad-norm curves of every trial"}
    if decide:
        commands[f"fnostab report --experiment {result.experiment}"] = "the verdict with its figures, as one HTML file"
    else:
        commands[f"fnostab decide --experiment {result.experiment}"] = "the verdict"
    say(console, "\nnext:", *(f"  {line}{at}    # {meaning}" for line, meaning in commands.items()))
