"""Options that several commands share, and parsers of their values."""

from __future__ import annotations

import functools
import gc
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fnostab.errors import ConfigError, TrackingError
from fnostab.report.named_studies import StoredStudies
from fnostab.study.limits import MOST_SEEDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fnostab.tracking import Store

RUN_ID = re.compile(r"[0-9a-f]{32}")  # as MLflow makes them
TRACKING_URI = click.option(
    "--tracking-uri", metavar="URI", help="MLflow server or database.  [default: MLFLOW_TRACKING_URI, or ./mlflow.db]"
)
OUTPUT_FOLDER = Path("outputs")
OUTPUT = click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=OUTPUT_FOLDER,
    show_default=True,
    help="Folder of journals and data sets.",
)
LAUNCHER = click.option(
    "--launcher",
    type=click.Choice(["local", "slurm"]),
    default="local",
    show_default=True,
    help="Run trials as processes on this machine, or as jobs of its Slurm cluster.",
)
CLUSTER = click.option(
    "--cluster",
    metavar="FILE",
    help="YAML file of what a Slurm job requests (docs/cluster.md).  [default: the cluster's]",
)

SEEDS = click.option(
    "--seeds", metavar="N|LIST", help="Number of seeds, or a list: 10, or 0,3,5.  [default: the study's]"
)
ARMS = click.option("--arms", metavar="LIST", help="Only these arms, separated by commas.  [default: all]")
PROFILE = click.option(
    "--profile", default="auto", show_default=True, help="Size: full, small, or auto (full on a GPU)."
)
EPOCHS = click.option("--epochs", metavar="N", help="Epochs of every trial.  [default: the profile's]")
JOBS = click.option(
    "--jobs",
    metavar="N",
    help="Trials (with Slurm: jobs) at the same time.  [default: one per GPU or core; programs without a GPU: 1]",
)
SET = click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Any setting, such as model.fno_blocks=8."
)
EXPERIMENT = click.option("--experiment", help="MLflow experiment.  [default: the study's name]")
RUNS = click.option("--runs", type=click.Path(path_type=Path), help="A YAML file that maps runs of your own to trials.")
NAMED = click.argument("named", metavar="[EXPERIMENT]", required=False)  # with `stored_studies`; means --experiment
STORED = (
    click.option("--experiment", help="MLflow experiment of the study, or of its Stage A."),
    click.option("--deep-experiment", help="MLflow experiment of Stage B, the deep stress test."),
    click.option("--study-run", help="Run id of the study.  [default: the newest of the experiment]"),
    click.option("--deep-study-run", help="The same for Stage B."),
)


def stored_studies(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that name studies in a store; the command gets them as ``stored``, None without an experiment."""

    @functools.wraps(command)
    def gathered(*positional: Any, experiment: str | None, named: str | None = None, **others: Any) -> None:
        if named and named.endswith((".csv", ".yaml", ".yml")):
            what = "name the experiment (by default the study's name), or give --runs FILE.yaml"
            raise ConfigError(f"{named} is a file: {what}; tables go to `fnostab decide --table FILE.csv`")
        if named and experiment not in (None, named):
            raise ConfigError(f"two experiments are given, {named} and --experiment {experiment}: name one")
        experiment = named or experiment
        of_studies = {name: others.pop(name) for name in ("deep_experiment", "study_run", "deep_study_run")}
        deep = of_studies["deep_experiment"]
        needs = {"deep_experiment": "experiment", "study_run": "experiment", "deep_study_run": "deep_experiment"}
        for name, needed in needs.items():
            if of_studies[name] and not (deep if needed == "deep_experiment" else experiment):
                alone, with_it = (f"--{each.replace('_', '-')}" for each in (name, needed))
                raise ConfigError(f"{alone} needs {with_it}: name the experiment that it belongs to")
        of_studies["tracking_uri"] = others.get("tracking_uri")
        stored = None if experiment is None else StoredStudies(experiment, **of_studies)
        command(*positional, stored=stored, **others)

    for option in reversed(STORED):
        gathered = option(gathered)
    return gathered


def store_to_read(tracking_uri: str | None) -> Store:
    """Open the store for a command that reads it and ends; a missing database is not created.

    Raises:
        TrackingError: as `existing_store`.
    """
    from fnostab.tracking import existing_store

    store = existing_store(tracking_uri)
    gc.freeze()  # MLflow's modules stay; searching them for garbage took a quarter of `decide` on 10,000 trials
    return store


def insist_on_one(given: Mapping[str, object], tracking_uri: str | None, todo: str = "judge") -> None:
    """Refuse a command of which not exactly one option names trials; if none does, name the newest study.

    Args:
        given: value of each option that names trials, None if it is not given; --experiment comes first.
        tracking_uri: address of the store in which the newest study is looked up.
        todo: verb for what the command does with the trials.

    Raises:
        ConfigError: several options are given, or none.
        TrackingError: none is given, and the store does not answer.
    """
    n, (*some, last) = sum(value is not None for value in given.values()), given
    if n > 1:
        names = f"{', '.join(option.split()[0] for option in some)} and {last.split()[0]}"
        raise ConfigError(f"give one of {names}: they name different trials")
    if n == 1:
        return
    others = ", ".join([*some[1:], f"or {last}"])
    try:
        store = store_to_read(tracking_uri)
        from fnostab.tracking import newest_experiment

        newest = newest_experiment(store)
    except TrackingError as error:
        raise TrackingError(f"{error}, or say what else to {todo}: {others.removeprefix('or ')}") from None
    raise ConfigError(f"say what to {todo}: --experiment {newest}, the newest in {store.address}, {others}")


def parse_seeds(text: str | None) -> Sequence[int]:
    """Parse seeds: ``"10"`` is a range, 0 to 9, ``"0,3,5"`` a list of those three, empty text the study's own.

    Raises:
        ConfigError: the text is neither a number nor a list of them.
    """
    if not text:
        return []
    parts = [part.strip() for part in text.split(",") if part.strip()]
    seeds: Sequence[int] = [int(part) for part in parts if part.isdecimal()]
    if "," not in text and seeds:
        seeds = range(min(seeds[0], MOST_SEEDS + 1))
    accepted = all(part.isdecimal() for part in parts) and 0 < len(seeds) <= MOST_SEEDS
    if not accepted or len(set(seeds)) < len(seeds):
        raise ConfigError(
            f"seeds={text!r} is not accepted: give a count from 1 to {MOST_SEEDS} (as in 10), "
            "or a list without repetition (as in 0,3,5)"
        )
    return seeds


def parse_looks(text: str) -> list[int]:
    """Parse looks: ``"10,20"`` are increasing numbers of seeds per arm.

    Raises:
        ConfigError: the numbers do not increase or are too large, or the text is not a list of numbers.
    """
    parts = [part.strip() for part in text.split(",")]
    looks = [int(part) for part in parts if part.isascii() and part.isdecimal()]
    if len(looks) < len(parts) or looks != sorted(set(looks)) or looks[0] < 1 or looks[-1] > MOST_SEEDS:
        raise ConfigError(
            f"looks={text!r} is not accepted: give increasing numbers of seeds per arm up to {MOST_SEEDS}, as in 10,20"
        )
    return looks


def parse_names(text: str | None) -> list[str]:
    """Parse names: ``"control,arch_fix"`` is a list, each name once; an empty list means all."""
    return list(dict.fromkeys(name.strip() for name in (text or "").split(",") if name.strip()))


def parse_settings(assignments: tuple[str, ...]) -> dict[str, Any]:
    """Parse settings as ``("model.fno_blocks=8",)`` into a dict; values are read as YAML.

    Raises:
        ConfigError: a setting has no ``=`` or no value, or its value is not YAML.
    """
    settings = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set {assignment!r} is not accepted: write it as name=value, as in model.fno_blocks=8")
        if not text.strip():
            raise ConfigError(
                f"--set {assignment!r} has no value: is a variable empty? Write {name}=null for none, "
                f"{name}='\"\"' for empty text"
            )
        settings[name] = _value(name, text)
    return settings


def positive(name: str, text: str | None) -> int | None:
    """Parse ``text`` as an integer of at least 1; None for empty text, which MLproject passes for an unset parameter.

    Raises:
        ConfigError: the text is anything else.
    """
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{name}={text!r} is not accepted: give a whole number from 1")
    return int(text)


def _value(name: str, text: str) -> Any:
    from fnostab.record.settings import read_yaml

    try:
        return read_yaml(text)
    except ConfigError as error:
        raise ConfigError(f"{name}={text!r} can't be read: {error}") from None
