"""``fnostab run``: run a study."""

from __future__ import annotations

from typing import Any

import click

from fnostab.cli.console import Console
from fnostab.cli.execution import RunOptions, as_assignments, execute, insist_on_results, show_dry_run
from fnostab.cli.options import (
    CLUSTER,
    LAUNCHER,
    OUTPUT,
    TRACKING_URI,
    parse_looks,
    parse_names,
    parse_seeds,
    positive,
)
from fnostab.errors import ConfigError, DecisionError
from fnostab.tasks.registry import CHAINS, load


@click.command("run", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("study")
@click.option("--seeds", metavar="N|LIST", help="How many seeds, or which: 10, or 0,3,5.  [default: the study's]")
@click.option("--arms", metavar="LIST", help="Only these arms, separated by commas.  [default: all]")
@click.option("--profile", default="auto", show_default=True, help="Size: full, small, or auto (full on a GPU).")
@click.option("--epochs", metavar="N", help="Epochs of every trial.  [default: the profile's]")
@click.option("--jobs", metavar="N", help="Trials side by side; of Slurm, jobs at once.  [default: one a GPU or core]")
@click.option("--lockstep", metavar="K", help="Train K seeds of an arm together in one process (docs/performance.md).")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Any setting, as model.fno_blocks=8.")
@click.option("--experiment", help="MLflow experiment.  [default: the study's name]")
@click.option(
    "--from",
    "from_experiment",
    metavar="EXPERIMENT",
    help="The arms that the newest verdict on EXPERIMENT asks for, with the settings that they had there.",
)
@click.option("--retry-oom", is_flag=True, help="Try trials again that ran out of memory.")
@click.option("--attempts", metavar="N", help="Give a trial up after N attempts that came no further.  [default: 3]")
@click.option("--sequential", metavar="LIST", help="Look after so many seeds, as 10,20: stop arms that are decided.")
@LAUNCHER
@CLUSTER
@click.option("--dry-run", is_flag=True, help="Show what would be started, and start nothing.")
@click.option("--decide", is_flag=True, help="Print the verdict at the end.")
@OUTPUT
@TRACKING_URI
@click.pass_context
def command(
    context: click.Context,
    /,
    study: str,
    seeds: str | None,
    arms: str | None,
    epochs: str | None,
    jobs: str | None,
    lockstep: str | None,
    attempts: str | None,
    settings: tuple[str, ...],
    decide: bool,
    sequential: str | None,
    dry_run: bool,
    **others: Any,
) -> None:
    """Run STUDY: a built-in one (see `fnostab studies`) or the path of a YAML file.

    Started again, it finishes what is missing and repeats nothing; more seeds extend it. Any other
    --NAME VALUE is a setting, as with --set.

    STUDY can also be a chain of studies, strategy or cure, that ends with a report.
    """
    options = RunOptions(
        study=study,
        settings=(*as_assignments(context.args), *settings),
        seeds=tuple(parse_seeds(seeds)),
        arms=tuple(parse_names(arms)),
        epochs=positive("epochs", epochs),
        jobs=positive("jobs", jobs),
        lockstep=positive("lockstep", lockstep),
        attempts=positive("attempts", attempts),
        **others,
    )
    run = load(CHAINS[study]) if study in CHAINS else run_and_report
    run(options, decide=decide, sequential=sequential, dry_run=dry_run)


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

        try:
            decide_and_print(result.store, result.experiment, study_run=result.run_id, console=console)
        except DecisionError as error:  # only some arms were asked for: what was to be run has run
            console.print(f"no verdict yet: {error}", highlight=False, soft_wrap=True)
    at = f" --tracking-uri {options.tracking_uri}" if options.tracking_uri else ""
    commands = {"fnostab ui": "grad-norm curves of every trial in the MLflow UI"}
    commands[f"fnostab decide --experiment {result.experiment}"] = "the verdict"
    console.print("\nnext:")
    for line, meaning in commands.items():
        console.print(f"  {line}{at}    # {meaning}", highlight=False, soft_wrap=True)
    insist_on_results(result)
