"""``fnostab activations``: does the mean of the activations grow with depth?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from fnostab.cli.options import OUTPUT, TRACKING_URI, parse_names
from fnostab.cli.run import execute
from fnostab.errors import LaunchError

if TYPE_CHECKING:
    from fnostab.training.activations import BlockMoments


@click.command("activations", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("study", default="stage_a")
@click.option("--arms", metavar="LIST", help="Only these arms, separated by commas.  [default: all]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--profile", default="auto", show_default=True, help="Size: full, small, or auto (full on a GPU).")
@click.option("--epochs", metavar="N", help="Epochs.  [default: the profile's]")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Any setting, as model.fno_blocks=8.")
@click.option("--experiment", help="MLflow experiment.  [default: the study's name]")
@OUTPUT
@TRACKING_URI
@click.pass_context
def command(context: click.Context, /, arms: str | None, seed: int, **options: Any) -> None:
    """Mean and spread of every block's output at initialisation and after training, against depth.

    Trains one seed of each arm of STUDY unless that is done already. Writes activations.png and
    activations.json into the study's folder, and adds them to its run in MLflow.
    """
    from fnostab.figures import activation_figure
    from fnostab.tracking import log_study_artifact
    from fnostab.training.activations import at_initialisation, recorded_last

    console = Console()
    _, result = execute(
        extra=context.args, seeds=[seed], arms=parse_names(arms), console=console, retry_oom=False, **options
    )
    for trial in result.trials:
        if trial.run_elsewhere is not None:
            raise LaunchError(
                f"the journal of {trial.name} is not in {result.folder}, only its MLflow run {trial.run_elsewhere} "
                "is left: give the folder that holds it with --output, or another --experiment to train it again"
            )
    moments = {
        trial.spec.arm: {
            "initialisation": at_initialisation(trial.spec),
            "after training": recorded_last(trial.directory),
        }
        for trial in result.trials
    }
    figure = activation_figure(moments)
    picture, numbers = result.folder / "activations.png", result.folder / "activations.json"
    figure.savefig(picture)
    numbers.write_text(json.dumps(moments, indent=2) + "\n")
    for path in (picture, numbers):
        log_study_artifact(result.store, result.run_id, path)
    console.print(_table(moments))
    console.print(f"figure: {picture}\nnumbers: {numbers}", highlight=False, soft_wrap=True)


def _table(moments: dict[str, dict[str, BlockMoments]]) -> Table:
    table = Table(title="Output of every block: mean (standard deviation)", title_justify="left", box=None)
    for column in ("arm", "block", "initialisation", "after training"):
        table.add_column(column, no_wrap=True, justify="right" if "i" in column else "left")
    for arm, of_arm in moments.items():
        for block in of_arm["initialisation"]:
            cells = [of_arm[moment].get(block) for moment in ("initialisation", "after training")]
            table.add_row(arm, block, *("-" if cell is None else f"{cell[0]:+.4f} ({cell[1]:.4f})" for cell in cells))
    return table
