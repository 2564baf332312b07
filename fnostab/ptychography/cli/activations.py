"""``fnostab activations``: measure whether the mean activation grows with depth."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fnostab.cli.execution import RunOptions, execute
from fnostab.cli.options import (
    ARMS,
    CLUSTER,
    EPOCHS,
    EXPERIMENT,
    JOBS,
    LAUNCHER,
    OUTPUT,
    PROFILE,
    SET,
    TRACKING_URI,
    parse_settings,
)
from fnostab.cli.run_options import run_options
from fnostab.errors import ConfigError, LaunchError, os_errors_as
from fnostab.ptychography.cli.activations_text import INITIALISATION, TRAINED, block_table, drift_table
from fnostab.record.safe_files import write_whole
from fnostab.show.console import Console

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fnostab.launch.run import StudyRun
    from fnostab.ptychography.drift import Drift
    from fnostab.ptychography.training.activations import BlockStates
    from fnostab.record.trial import TrialSpec
    from fnostab.tracking import Store

    Arms = Mapping[str, Mapping[str, Mapping[int, BlockStates]]]  # by arm, moment and seed
    Measured = tuple[Arms, Path, tuple[Store, str] | None]  # with the folder and the study's run


@click.command(
    "activations",
    epilog="Example: fnostab activations stage_a --at initialisation",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.argument("study", required=False)
@click.option(
    "--at", type=click.Choice([INITIALISATION, "both"]), default="both", show_default=True, help="When to measure."
)
@ARMS
@click.option(
    "--seeds", metavar="N|LIST", default="1", show_default=True, help="Number of seeds, or a list: 10, or 0,3,5."
)
@PROFILE
@EPOCHS
@JOBS
@SET
@EXPERIMENT
@LAUNCHER
@CLUSTER
@OUTPUT
@TRACKING_URI
@run_options
def command(at: str, options: RunOptions) -> None:
    """Show statistics of every block against depth: does the mean of the activations grow?

    Mean and spread of the output, dead units, spectral branch against convolution, and power at low
    frequencies: at initialisation, and after training. Trains the seeds of each arm of STUDY (default
    stage_a) unless that is done already; `--at initialisation` trains nothing. Writes activations.png and
    activations.json into the study's folder, and adds them to its run in MLflow.
    """
    console = Console()
    options = replace(options, study=options.study or "stage_a")
    measure = _at_initialisation if at == INITIALISATION else _after_training
    _report(*measure(options, console), console)


def _insist_on_networks(study: str) -> None:
    """Refuse a study of another task before training anything."""
    from fnostab.study.file import read_study_file

    if (task := read_study_file(study).task_name) != "ptychography":
        raise ConfigError(f"{study} is a study of a {task}: activations are those of the built-in networks")


def _at_initialisation(options: RunOptions, console: Console) -> Measured:
    """Measure the arms of a study without training, in this process for any launcher."""
    from fnostab.study.study import load_study

    _insist_on_networks(options.study)
    loaded = load_study(options.study, options.profile, parse_settings(options.settings), epochs=options.epochs)
    name, output = loaded.file.name, options.output
    trials = loaded.trials(options.experiment or name, output, arms=options.arms, seeds=options.seeds)
    first = _first_states([trial.spec for trial in trials], console)
    return first, output / "activations" / f"{name}-{loaded.hash}", None


def _after_training(options: RunOptions, console: Console) -> Measured:
    """Measure the arms of a study after training; missing trials are trained."""
    _insist_on_networks(options.study)
    result = execute(options, console)
    _insist_on_journals(result)
    from fnostab.ptychography.training.activations import recorded_last

    first = _first_states([trial.spec for trial in result.trials], console)
    found = {arm: {**moments, TRAINED: {}} for arm, moments in first.items()}
    for trial in result.trials:
        found[trial.spec.arm][TRAINED][trial.spec.seed] = recorded_last(trial.directory)
    return found, result.folder, (result.store, result.run_id)


def _insist_on_journals(result: StudyRun) -> None:
    for trial in result.trials:
        if trial.run_id is not None:
            raise LaunchError(
                f"the journal of {trial.name} is not in {result.folder}, only its MLflow run {trial.run_id} "
                "is left: give the folder that holds it with --output, or another --experiment to train it again"
            )


def _first_states(specs: Sequence[TrialSpec], console: Console) -> dict[str, dict[str, dict[int, BlockStates]]]:
    from fnostab.ptychography.training.activations import at_initialisation

    found: dict[str, dict[str, dict[int, BlockStates]]] = {}
    for seed, of_seed in groupby(specs, key=lambda spec: spec.seed):
        console.print(f"initialising the networks of seed {seed} ...", highlight=False)
        for spec in of_seed:
            found.setdefault(spec.arm, {INITIALISATION: {}})[INITIALISATION][seed] = at_initialisation(spec)
    return found


def _report(arms: Arms, folder: Path, run: tuple[Store, str] | None, console: Console) -> None:
    """Write the figure and numbers, add them to the MLflow run, and print the tables."""
    from fnostab.ptychography.drift import drift
    from fnostab.ptychography.figures.activations import activation_figure

    drifts = {
        arm: {moment: drift(list(seeds.values())) for moment, seeds in moments.items()} for arm, moments in arms.items()
    }
    figure = activation_figure(
        {arm: {moment: list(seeds.values()) for moment, seeds in moments.items()} for arm, moments in arms.items()}
    )
    picture, numbers = folder / "activations.png", folder / "activations.json"
    with os_errors_as(LaunchError, f"can't write to {folder}", "name another --output"):
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(picture)
        write_whole(numbers, json.dumps(_record(arms, drifts), indent=2, allow_nan=False) + "\n")
    if run is not None:
        from fnostab.tracking.read.histories import log_files

        log_files(*run, (picture, numbers), folder)
    for arm, moments in arms.items():
        for moment, seeds in moments.items():
            console.print(block_table(arm, moment, seeds))
    console.print(drift_table(drifts))
    console.print(f"figure: {picture}\nnumbers: {numbers}", highlight=False, soft_wrap=True)


def _record(arms: Arms, drifts: Mapping[str, Mapping[str, Drift | None]]) -> dict[str, Any]:
    def named(states: BlockStates) -> dict[str, Any]:
        return {block: {name.rstrip("/"): value for name, value in state.items()} for block, state in states.items()}

    return {
        arm: {
            moment: {
                "drift": of.as_dict() if (of := drifts[arm][moment]) else None,
                "seeds": {str(seed): named(states) for seed, states in seeds.items()},
            }
            for moment, seeds in moments.items()
        }
        for arm, moments in arms.items()
    }
