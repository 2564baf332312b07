"""``fnostab run``: run a study."""

from pathlib import Path

import click
from rich.console import Console

from fnostab.cli.options import OUTPUT, TRACKING_URI, parse_names, parse_seeds, parse_settings, positive
from fnostab.errors import ConfigError


@click.command("run", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("study")
@click.option("--seeds", metavar="N|LIST", help="How many seeds, or which: 10, or 0,3,5.  [default: the study's]")
@click.option("--arms", metavar="LIST", help="Only these arms, separated by commas.  [default: all]")
@click.option("--profile", default="auto", show_default=True, help="Size: full, small, or auto (full on a GPU).")
@click.option("--epochs", metavar="N", help="Epochs of every trial.  [default: the profile's]")
@click.option("--jobs", metavar="N", help="Trials side by side.  [default: one a GPU, or one a core]")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Any setting, as model.fno_blocks=8.")
@click.option("--experiment", help="MLflow experiment.  [default: the study's name]")
@click.option("--retry-oom", is_flag=True, help="Try trials again that ran out of memory.")
@click.option("--decide/--no-decide", "decide_too", default=False, help="Print the verdict at the end.")
@OUTPUT
@TRACKING_URI
@click.pass_context
def command(
    context: click.Context,
    study: str,
    seeds: str | None,
    arms: str | None,
    profile: str,
    epochs: str | None,
    jobs: str | None,
    settings: tuple[str, ...],
    experiment: str | None,
    retry_oom: bool,
    decide_too: bool,
    output: Path,
    tracking_uri: str | None,
) -> None:
    """Run STUDY: a built-in one (see `fnostab studies`) or the path of a YAML file.

    Started again, it finishes what is missing and repeats nothing; more seeds extend it. Any other
    --NAME VALUE is a setting, as with --set.
    """
    from fnostab.studies.run import run_study
    from fnostab.studies.spec import load_study

    overrides = parse_settings((*_as_assignments(context.args), *settings))
    if (n_epochs := positive("epochs", epochs)) is not None:
        overrides["training.epochs"] = n_epochs
    console = Console()
    loaded = load_study(study, profile or "auto", overrides)
    if (profile or "auto") == "auto":
        console.print(f"profile: {loaded.profile} ({'a' if loaded.profile == 'full' else 'no'} GPU was found)")
    result = run_study(
        loaded,
        experiment=experiment or loaded.file.name,
        output=output,
        seeds=parse_seeds(seeds),
        arms=parse_names(arms),
        jobs=positive("jobs", jobs),
        retry_oom=retry_oom,
        tracking_uri=tracking_uri,
        console=console,
    )
    name = experiment or loaded.file.name
    uri = f" --tracking-uri {tracking_uri}" if tracking_uri else ""
    if result.unsent:
        raise ConfigError(result.unsent)
    if decide_too:
        from fnostab.cli.decide import decide_and_print

        decide_and_print(result.store, name, study_run=result.run_id, console=console)
    console.print("\nnext:")
    console.print(f"  fnostab ui{uri}    # grad-norm curves of every trial in the MLflow UI", highlight=False)
    console.print(f"  fnostab decide --experiment {name}{uri}    # the verdict", highlight=False)


def _as_assignments(extra: list[str]) -> list[str]:
    """``--model.fno_blocks 8``, as `mlflow run -P` hands on what MLproject does not declare."""
    assignments = []
    rest = iter(extra)
    for option in rest:
        name, equals, value = option.removeprefix("--").partition("=")
        if not option.startswith("--") or "." not in name:
            raise ConfigError(f"unknown argument {option!r}; settings have dots, as in --model.fno_blocks 8; see --help")
        if not equals:
            try:
                value = next(rest)
            except StopIteration:
                raise ConfigError(f"{option} has no value") from None
        assignments.append(f"{name}={value}")
    return assignments
