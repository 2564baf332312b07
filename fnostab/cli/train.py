"""``fnostab train``: train one trial."""

import os
import sys
from importlib import import_module
from pathlib import Path

import click

from fnostab.cli.execution import RunOptions, as_assignments
from fnostab.cli.options import OUTPUT, TRACKING_URI, positive
from fnostab.cli.run import run_and_report
from fnostab.errors import ConfigError
from fnostab.startup import imports_that_stay


@click.command("train", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("study", required=False)
@click.option("--arm", default="control", show_default=True)
@click.option("--seed", default="0", show_default=True)
@click.option("--profile", default="auto", show_default=True, help="Size: full, small, or auto (full on a GPU).")
@click.option("--epochs", metavar="N", help="Epochs.  [default: the profile's]")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Any setting, as model.fno_blocks=8.")
@click.option("--experiment", help="MLflow experiment.  [default: the study's name]")
@click.option(
    "--trial",
    "trial_files",
    type=click.Path(dir_okay=False, path_type=Path),
    multiple=True,
    help="A trial.json instead; several of one arm are trained in lockstep.",
)
@click.option("--fork-server", metavar="MODULES", hidden=True, help="Import these; fork trials, as asked on stdin.")
@OUTPUT
@TRACKING_URI
@click.pass_context
def command(
    context: click.Context,
    study: str | None,
    arm: str,
    seed: str,
    profile: str,
    epochs: str | None,
    settings: tuple[str, ...],
    experiment: str | None,
    trial_files: tuple[Path, ...],
    fork_server: str | None,
    output: Path,
    tracking_uri: str | None,
) -> None:
    """Train one arm of STUDY at one seed, recorded as the whole study would be.

    With --trial FILE, as launchers call it: train what trial.json describes and write journal and
    artifacts beside it. That needs no MLflow; `fnostab sync` sends the journal.
    """
    if trial_files or fork_server:
        with imports_that_stay():
            from fnostab.launch.process import train_files

            for module in (fork_server or "").split(",") if fork_server else ():
                import_module(module)
        if fork_server:
            from fnostab.launch.forking import become_a_trial

            trial_files = tuple(become_a_trial())
        status = train_files(trial_files)
        if fork_server:
            sys.stdout.flush()
            os._exit(status)  # to take down what is shared with other forks would copy it first
        sys.exit(status)
    if study is None:
        raise ConfigError("which trial? Name a study (see `fnostab studies`), or a file with --trial")
    if not seed.isdecimal():
        raise ConfigError(f"seed={seed!r} is not accepted: give a whole number from 0")
    options = RunOptions(
        study=study,
        settings=(*as_assignments(context.args), *settings),
        seeds=(int(seed),),
        arms=(arm,),
        profile=profile,
        epochs=positive("epochs", epochs),
        experiment=experiment,
        output=output,
        tracking_uri=tracking_uri,
        live=True,
    )
    run_and_report(options)
