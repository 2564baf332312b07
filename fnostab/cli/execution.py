"""Run a study as a command's options describe it: load it, choose the launcher, and run the missing trials."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from fnostab.cli.launchers import make_launcher
from fnostab.cli.options import parse_names, parse_seeds, parse_settings, positive
from fnostab.errors import ConfigError, LaunchError, TrackingError, UnknownSettingError
from fnostab.record.plurals import counted
from fnostab.show.console import timed
from fnostab.startup import imports_that_stay

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fnostab.launch.launcher import Launcher
    from fnostab.launch.run import StudyRun
    from fnostab.study.study import Study

_ASSIGNMENT = re.compile(r"[\w.-]+=.*")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """A run of a study, as the options of `fnostab run` describe it.

    Attributes:
        study: name of a built-in study, or path of a study file; empty if none was named.
        output: folder of journals and data sets.
        settings: assignments, each ``NAME=VALUE``.
        seeds: seeds of the trials, a range where a count was given; empty for the study's own.
        arms: arms that are run; empty for all.
        from_experiment: experiment whose newest verdict chooses the arms, with their settings from there.
        attempts: number of attempts in a row without progress after which a trial is given up; None for the default.
        alpha: level of the tests; None for the study's.
        looks: numbers of seeds per arm at the planned looks.
        once: whether each trial is tried exactly once, and a program's output is shown while it runs.
    """

    study: str
    output: Path
    settings: tuple[str, ...] = ()
    seeds: Sequence[int] = ()
    arms: tuple[str, ...] = ()
    profile: str = "auto"
    epochs: int | None = None
    jobs: int | None = None
    lockstep: int | None = None
    experiment: str | None = None
    from_experiment: str | None = None
    retry_oom: bool = False
    attempts: int | None = None
    launcher: str = "local"
    cluster: str | None = None
    tracking_uri: str | None = None
    alpha: float | None = None
    looks: tuple[int, ...] = ()
    once: bool = False


def execute(options: RunOptions, console: Console) -> StudyRun:
    """Load a study and run its missing trials.

    Raises:
        FnostabError: the study could not be started, or not all of it could be recorded.
    """
    from fnostab.launch.retries import ATTEMPTS

    loaded, arms, launcher = _resolve(options, console)
    with timed(console, "loading MLflow"), imports_that_stay():  # takes seconds
        from fnostab.launch.run import run_study

    result = run_study(
        loaded,
        experiment=options.experiment or loaded.file.name,
        output=options.output,
        seeds=options.seeds,
        arms=arms,
        launcher=launcher,
        retry_oom=options.retry_oom,
        attempts=options.attempts or ATTEMPTS,
        once=options.once,
        tracking_uri=options.tracking_uri,
        console=console,
    )
    if result.unsent:
        raise TrackingError(result.unsent)
    return result


def show_dry_run(options: RunOptions, console: Console) -> None:
    """Show which trials would be started; start and write nothing.

    Raises:
        FnostabError: the study could not be started.
    """
    from fnostab.launch.dry_run import dry_run
    from fnostab.launch.retries import ATTEMPTS, Retries

    loaded, arms, launcher = _resolve(options, console, starts=False)
    dry_run(
        loaded,
        experiment=options.experiment or loaded.file.name,
        output=options.output,
        seeds=options.seeds,
        arms=arms,
        launcher=launcher,
        retries=Retries(options.attempts or ATTEMPTS, options.retry_oom),
        console=console,
    )


def _resolve(options: RunOptions, console: Console, *, starts: bool = True) -> tuple[Study, tuple[str, ...], Launcher]:
    """Load the study, and choose its arms (empty for all) and its launcher.

    Without ``starts`` trials are only shown, so that the launcher needs no Slurm.
    """
    from fnostab.study.study import load_study

    on_cluster = make_launcher(options.launcher, options.cluster, options.jobs, starts=starts)
    arms, profile = options.arms, options.profile
    if options.from_experiment:
        from fnostab.cli.run_from import load_after

        loaded, deserving = load_after(options, console)
        arms = arms or tuple(deserving)
    else:
        gpus = None if on_cluster is None else on_cluster.has_gpus
        loaded = load_study(options.study, profile, parse_settings(options.settings), epochs=options.epochs, gpus=gpus)
    loaded.file.insist_on_arms(arms)  # before torch is imported, which takes seconds
    if isinstance(options.seeds, range):
        loaded.file.insist_on_count(len(options.seeds))
    loaded.looks = options.looks
    if options.alpha is not None:
        loaded.file = loaded.file.model_copy(update={"alpha": options.alpha})
    if profile == "auto" and loaded.profile and not options.from_experiment:
        how = "was found" if on_cluster is None else "was requested"
        console.print(f"profile {loaded.profile}: {'a' if loaded.profile == 'full' else 'no'} GPU {how}")
    if on_cluster is not None:
        if options.lockstep is not None:
            raise ConfigError("--lockstep works on this machine only: leave it out, or leave out --launcher slurm")
        return loaded, arms, on_cluster
    from fnostab.launch.local import LocalLauncher, default_jobs

    takes = loaded.resources
    jobs = options.jobs or default_jobs(takes.gpu, one_a_core=takes.one_a_core)
    live = options.once and loaded.task.name == "command"
    return loaded, arms, LocalLauncher(jobs, takes.gpu, options.lockstep or 1, live=live)


def insist_on_results(result: StudyRun) -> None:
    """Raise LaunchError if a trial has no outcome, or one after which it is retried."""
    from fnostab.launch.retries import ATTEMPTS
    from fnostab.record.stderr_tail import STDERR_FILE

    missing = [trial for trial in result.trials if not trial.finished]
    if not missing:
        return
    begun = [trial for trial in missing if trial.first_ms is not None] or missing
    first = next(iter(result.given_up), begun[0])
    again = f"the same command retries {'it' if len(missing) == 1 else 'them'}"
    if result.given_up:
        most = max(trial.fruitless for trial in result.given_up)
        again = f"`fnostab run` with --attempts {most + ATTEMPTS} retries those that were given up"
        if first.spec.argv is not None:
            again += "; a changed script needs no --attempts, since it is a new study"
    waiting = f", {len(missing) - len(begun)} did not start" if len(begun) < len(missing) else ""
    log = first.directory / STDERR_FILE
    output = f"; its output is in {log}" if log.exists() and log.stat().st_size else ""
    who = (
        f"{len(begun)} of {counted(len(result.trials), 'trial')} ended without a result{waiting}, such as {first.name}"
    )
    if len(result.trials) == 1:
        who = f"{first.name} ended without a result"
    raise LaunchError(f"{who}: {first.outcome} ({first.reason}){output}; fix that, then {again}")


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command: gather and parse its options that are fields of `RunOptions`, and pass these as ``options``.

    Undeclared options are settings, since `mlflow run -P` passes parameters so.
    """
    names = {each.name for each in fields(RunOptions)}

    @click.pass_context
    @functools.wraps(command)
    def gathered(context: click.Context, /, **given: Any) -> None:
        own = {name: given.pop(name) for name in names if name in given}
        own["seeds"] = parse_seeds(own.get("seeds"))
        own["arms"] = tuple(parse_names(own.get("arms")))
        own |= {name: positive(name, own[name]) for name in ("epochs", "jobs", "lockstep", "attempts") if name in own}
        study, assignments = _study_and_assignments(context, own.pop("study"))
        settings = (*assignments, *own.pop("settings"))
        try:
            command(options=RunOptions(study=study, settings=settings, **own), **given)
        except UnknownSettingError as error:
            similar = _similar_option(context, error.setting)
            if similar and any(setting.partition("=")[0] == error.setting for setting in settings):
                raise click.UsageError(
                    f"{error.setting!r} is not a setting (did you mean {similar}?)", context
                ) from None
            raise

    return gathered


def _study_and_assignments(context: click.Context, study: str | None) -> tuple[str, list[str]]:
    """Return the argument STUDY, empty without one, and settings; click takes a first word ``--lr`` for STUDY too."""
    words, assignments = split_words([study, *context.args] if study else context.args, context)
    required = any(isinstance(each, click.Argument) and each.required for each in context.command.params)
    if required and not words:
        raise click.UsageError("Missing argument 'STUDY'", context)
    wrong = words[1:]
    if words and _ASSIGNMENT.fullmatch(words[0]) and not Path(words[0]).exists():
        wrong = words
    if wrong:
        raise _unknown(wrong[0], context)
    return (words or [""])[0], assignments


def split_words(words: Sequence[str], context: click.Context | None = None) -> tuple[list[str], list[str]]:
    """Split the words that click left over into arguments and assignments: ``--lr 0.1`` is ``lr=0.1``.

    Args:
        words: words of the command line; ``--set.lr 0.1`` is the same as ``--lr 0.1``.
        context: context of the command, whose options an error suggests.

    Raises:
        click.UsageError: an option has no value.
    """
    others, assignments = list[str](), list[str]()
    rest = iter(words)
    for word in rest:
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name:
            others.append(word)
            continue
        following = value if equals else next(rest, None)
        if following is None or (not equals and following.startswith("--")):
            similar = _similar_option(context, name)
            raise click.UsageError(f"{word} has no value" + (f" (did you mean {similar}?)" if similar else ""), context)
        assignments.append(f"{name.removeprefix('set.')}={following}")
    return others, assignments


def _unknown(word: str, context: click.Context) -> click.UsageError:
    """Make the error for a word that is neither an option nor a setting."""
    name, equals, value = word.lstrip("-").partition("=")
    if equals:
        option = _similar_option(context, name) or f"--{name}"
        return click.UsageError(f"unknown argument {word!r}: write {option} {value}", context)
    similar = _similar_option(context, name) if word.startswith("-") else ""
    hint = f" (did you mean {similar}?)" if similar else "; a setting is written --name VALUE"
    return click.UsageError(f"unknown argument {word!r}{hint}", context)


def _similar_option(context: click.Context | None, name: str) -> str:
    """Find the option of a command whose name is most similar to ``name``; empty if none is similar."""
    parameters = context.command.params if context else []
    options = [o.removeprefix("--") for each in parameters if isinstance(each, click.Option) for o in each.opts]
    return next((f"--{option}" for option in get_close_matches(name, options, n=1)), "")


def refuse_in_a_chain(chain: str, **given: object) -> None:
    """Raise ConfigError if an option is given that a chain of studies sets itself."""
    for name, value in given.items():
        if value:
            raise ConfigError(
                f"--{name.replace('_', '-')} applies to single studies, not to {chain}, a chain of them: leave it "
                f"out, or run one of them with it (`fnostab studies`)"
            )
