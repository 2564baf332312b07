"""``fnostab run``: run a study."""

from __future__ import annotations

import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from fnostab.cli.launchers import make_launcher
from fnostab.cli.options import (
    CLUSTER,
    LAUNCHER,
    OUTPUT,
    TRACKING_URI,
    parse_looks,
    parse_names,
    parse_seeds,
    parse_settings,
    positive,
)
from fnostab.errors import ConfigError, DecisionError, LaunchError, TrackingError
from fnostab.startup import imports_that_stay
from fnostab.tasks.registry import CHAINS, load

if TYPE_CHECKING:
    from collections.abc import Callable

    from fnostab.launch.launcher import Launcher
    from fnostab.launch.run import StudyRun
    from fnostab.study.study import Study


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
    seeds: str | None,
    arms: str | None,
    jobs: str | None,
    lockstep: str | None,
    attempts: str | None,
    **options: Any,
) -> None:
    """Run STUDY: a built-in one (see `fnostab studies`) or the path of a YAML file.

    Started again, it finishes what is missing and repeats nothing; more seeds extend it. Any other
    --NAME VALUE is a setting, as with --set.

    STUDY can also be a chain of studies, strategy or cure, that ends with a report.
    """
    given: dict[str, Any] = {
        "extra": context.args,
        "seeds": parse_seeds(seeds),
        "arms": parse_names(arms),
        "jobs": positive("jobs", jobs),
        "lockstep": positive("lockstep", lockstep),
        "attempts": positive("attempts", attempts),
    }
    if options["study"] in CHAINS:
        load(CHAINS[options["study"]])(**given, **options)
    else:
        run_and_report(**given, **options)


def run_and_report(
    *, decide: bool = False, sequential: str | None = None, dry_run: bool = False, **options: Any
) -> None:
    """Run a study or a part of it, print the verdict if asked, and name the next commands.

    Args:
        decide: print the verdict.
        sequential: seeds per arm at which to look, as in "10,20".
        dry_run: only show what would be started.
        options: options of `execute`.

    Raises:
        FnostabError: it could not be started, not all of it could be recorded, or a trial came to no result.
    """
    console = Console()
    if dry_run:
        _show_dry_run(console=console, **options)
        return
    if sequential:
        from fnostab.cli.looks import run_in_looks

        if options["from_experiment"]:
            raise ConfigError("--sequential decides by itself which arms go on: leave out --from")
        result = run_in_looks(parse_looks(sequential), console=console, **options)
    else:
        _, result = execute(console=console, **options)
    if decide:
        from fnostab.cli.decide import decide_and_print

        try:
            decide_and_print(result.store, result.experiment, study_run=result.run_id, console=console)
        except DecisionError as error:  # only some arms were asked for: what was to be run has run
            console.print(f"no verdict yet: {error}", highlight=False, soft_wrap=True)
    tracking_uri = options.get("tracking_uri")
    at = f" --tracking-uri {tracking_uri}" if tracking_uri else ""
    commands = {"fnostab ui": "grad-norm curves of every trial in the MLflow UI"}
    commands[f"fnostab decide --experiment {result.experiment}"] = "the verdict"
    console.print("\nnext:")
    for line, meaning in commands.items():
        console.print(f"  {line}{at}    # {meaning}", highlight=False, soft_wrap=True)
    insist_on_results(result)


def execute(
    *,
    seeds: list[int],
    experiment: str | None,
    output: Path,
    tracking_uri: str | None,
    console: Console,
    jobs: int | None = None,
    retry_oom: bool = False,
    attempts: int | None = None,
    **options: Any,
) -> tuple[Study, StudyRun]:
    """Load a study as the command line names it, and run what is missing of it.

    ``options`` are those of `_resolve`.

    Raises:
        FnostabError: it could not be started, or not all of it could be recorded.
    """
    from fnostab.launch.retries import ATTEMPTS

    loaded, arms, launcher = _resolve(jobs=jobs, tracking_uri=tracking_uri, console=console, **options)
    run_study = _load(loaded, console)
    result = run_study(
        loaded,
        experiment=experiment or loaded.file.name,
        output=output,
        seeds=seeds,
        arms=arms,
        jobs=jobs,
        launcher=launcher,
        retry_oom=retry_oom,
        attempts=ATTEMPTS if attempts is None else attempts,
        tracking_uri=tracking_uri,
        console=console,
    )
    if result.unsent:
        raise TrackingError(result.unsent)
    return loaded, result


def _show_dry_run(
    *,
    seeds: list[int],
    experiment: str | None,
    output: Path,
    jobs: int | None,
    retry_oom: bool,
    attempts: int | None,
    console: Console,
    **options: Any,
) -> None:
    from fnostab.launch.dry_run import dry_run
    from fnostab.launch.retries import ATTEMPTS, Retries

    loaded, arms, launcher = _resolve(jobs=jobs, console=console, **options)
    dry_run(
        loaded,
        experiment=experiment or loaded.file.name,
        output=output,
        seeds=seeds,
        arms=arms,
        jobs=jobs,
        launcher=launcher,
        retries=Retries(ATTEMPTS if attempts is None else attempts, retry_oom),
        console=console,
    )


def _resolve(
    *,
    study: str,
    extra: list[str],
    settings: tuple[str, ...],
    arms: list[str],
    profile: str,
    epochs: str | None,
    jobs: int | None,
    tracking_uri: str | None,
    console: Console,
    launcher: str = "local",
    cluster: str | None = None,
    lockstep: int | None = None,
    alpha: float | None = None,
    looks: tuple[int, ...] = (),
    from_experiment: str | None = None,
    live: bool = False,
) -> tuple[Study, list[str], Launcher | None]:
    """Resolve the command line into a study, the arms to run (empty for all), and the launcher that runs them."""
    from fnostab.study.study import load_study

    on_cluster = make_launcher(launcher, cluster, jobs)
    gpus = None if on_cluster is None else on_cluster.has_gpus
    overrides = parse_settings((*as_assignments(extra), *settings))
    n_epochs = positive("epochs", epochs)
    if from_experiment:
        from fnostab.cli.after import load_after

        loaded, deserving = load_after(from_experiment, study, profile, n_epochs, overrides, tracking_uri, console)
        arms = arms or deserving
    else:
        loaded = load_study(study, profile, overrides, epochs=n_epochs, gpus=gpus)
    loaded.looks = looks
    if alpha is not None:
        loaded.file = loaded.file.model_copy(update={"alpha": alpha})
    if profile == "auto" and loaded.profile and not from_experiment:
        how = "was found" if on_cluster is None else "is asked for"
        console.print(f"profile {loaded.profile}: {'a' if loaded.profile == 'full' else 'no'} GPU {how}")
    if lockstep is None and not (live and loaded.task.name == "command"):
        return loaded, arms, on_cluster
    if on_cluster is not None:
        raise ConfigError("--lockstep is of this machine's trials: leave it out, or leave out --launcher slurm")
    from fnostab.launch.local import LocalLauncher, default_jobs

    takes = loaded.resources
    n = jobs or default_jobs(takes.gpu, one_a_core=takes.one_a_core)
    return loaded, arms, LocalLauncher(n, takes.gpu, lockstep or 1, live=live)


def _load(study: Study, console: Console) -> Callable[..., StudyRun]:
    """Import `run_study`; this takes seconds, so a line is shown meanwhile."""
    modules = study.resources.preloads
    console.print(f"loading {'torch and ' if modules else ''}MLflow ...", end=" ")
    started = time.monotonic()
    with imports_that_stay():
        for module in modules:  # they take seconds, which would be silent later
            import_module(module)
        from fnostab.launch.run import run_study

    console.print(f"{time.monotonic() - started:.1f} s", highlight=False)
    return run_study


def insist_on_results(result: StudyRun) -> None:
    """Raise LaunchError if a trial has no outcome, or one after which it is tried again."""
    from fnostab.launch.retries import ATTEMPTS

    missing = [trial for trial in result.trials if not trial.finished]
    if not missing:
        return
    first = next(iter(result.given_up), missing[0])
    again = "the same command tries them again"
    if result.given_up:
        most = max(trial.fruitless for trial in result.given_up)
        again = f"`fnostab run` with --attempts {most + ATTEMPTS} tries {len(result.given_up)} given up again"
    raise LaunchError(
        f"{len(missing)} of {len(result.trials)} trials came to no result, as {first.name}: {first.outcome} "
        f"({first.reason}); mend that, and {again}"
    )


def as_assignments(extra: list[str]) -> list[str]:
    """Turn ``--lr 0.1`` or ``--set.lr 0.1`` into assignments; `mlflow run -P` passes undeclared parameters so."""
    assignments = []
    rest = iter(extra)
    for option in rest:
        name, equals, value = option.removeprefix("--").partition("=")
        if not option.startswith("--") or not name:
            raise ConfigError(f"unknown argument {option!r}; a setting is written --name VALUE; see --help")
        if not equals:
            try:
                value = next(rest)
            except StopIteration:
                raise ConfigError(f"{option} has no value") from None
        assignments.append(f"{name.removeprefix('set.')}={value}")
    return assignments
