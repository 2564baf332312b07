"""``fnostab train``: train one trial."""

import os
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import click

from fnostab.cli.execution import RunOptions
from fnostab.cli.options import EPOCHS, EXPERIMENT, OUTPUT, PROFILE, SET, TRACKING_URI
from fnostab.cli.run import run_and_report
from fnostab.cli.run_options import run_options
from fnostab.errors import ConfigError
from fnostab.show.notifying import VARIABLE
from fnostab.startup import imports_that_stay


@click.command(
    "train",
    epilog="Example: fnostab train stage_a --arm control --seed 3",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.argument("study", required=False)
@click.option("--arm", help="Arm to train.  [default: the study's control]")
@click.option("--seed", metavar="N", default="0", show_default=True, help="Seed to train it with.")
@PROFILE
@EPOCHS
@SET
@EXPERIMENT
@click.option(
    "--trial",
    "trial_files",
    type=click.Path(dir_okay=False, path_type=Path),
    multiple=True,
    help="Train this trial.json; several of one arm train in lockstep.",
)
@click.option("--fork-server", metavar="MODULES", hidden=True, help="Import these; fork trials, as asked on stdin.")
@OUTPUT
@TRACKING_URI
@run_options
def command(
    arm: str | None, seed: str, trial_files: tuple[Path, ...], fork_server: str | None, options: RunOptions
) -> None:
    """Train one arm of STUDY at one seed, once, recorded as the whole study would be.

    The output of a program is shown.

    With --trial FILE, as launchers call it: train what trial.json describes and write journal and
    artifacts beside it. That needs no MLflow; `fnostab sync` sends the journal.
    """
    os.environ.pop(VARIABLE, None)  # addresses with passwords, which a trial's program does not need
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
            os._exit(status)  # a normal exit would write to, and so copy, memory shared with other forks
        sys.exit(status)
    if not options.study:
        raise ConfigError("which trial? Name a study (see `fnostab studies`), or a file with --trial")
    from fnostab.study.file import read_study_file

    if not seed.isdecimal():
        raise ConfigError(f"seed={seed!r} is not accepted: give a whole number from 0")
    arm = arm or read_study_file(options.study).control
    run_and_report(replace(options, seeds=(int(seed),), arms=(arm,), once=True))
