"""Run a study as a command's options describe it: load it, choose the launcher, and run the missing trials."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from fnostab.cli.options import parse_settings
from fnostab.errors import ConfigError, LaunchError, TrackingError
from fnostab.record.plurals import counted
from fnostab.show.console import say, timed
from fnostab.startup import imports_that_stay

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fnostab.launch.launcher import Launcher
    from fnostab.launch.run import StudyRun
    from fnostab.launch.slurm.launcher import SlurmLauncher
    from fnostab.study.study import Study


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
    """Print how many trials would be started, and how. Only journals are read; nothing is written.

    Raises:
        FnostabError: the study could not be started.
    """
    from fnostab.launch.retries import ATTEMPTS, Retries

    study, arms, launcher = _resolve(options, console, starts=False)
    experiment, output = options.experiment or study.file.name, options.output.absolute()
    retries = Retries(options.attempts or ATTEMPTS, options.retry_oom)
    folder = study.folder(output, study.spec(experiment).experiment)
    trials = study.trials(experiment, output, arms=arms, seeds=options.seeds)
    study.task.check_start([trial.spec for trial in trials], here=launcher.here, lockstep=launcher.lockstep)
    for trial in trials:
        trial.update()
    wanted = [trial for trial in trials if retries.wants(trial)]
    commands: dict[str, str] = {}
    for trial in wanted:
        if trial.spec.argv:
            commands.setdefault(trial.spec.arm, shlex.join(trial.spec.argv))
    lines = [f"study {study.described} in experiment {experiment}", f"journals in {folder}", *study.twins(arms)]
    if given_up := [trial for trial in trials if retries.gave_up(trial)]:
        first, most = given_up[0], max(trial.fruitless for trial in given_up)
        lines.append(
            f"{len(given_up)} of {counted(len(trials), 'trial was', 'trials were')} given up, such as {first.name}: "
            f"{first.outcome} ({first.reason}); --attempts {most + ATTEMPTS} retries them"
        )
    side_by_side = f", {launcher.jobs} side by side:" if wanted else ""
    lines.append(f"{len(wanted)} of {counted(len(trials), 'trial')} would be started{side_by_side}")
    lines += filter(None, [launcher.preview(wanted)])
    say(console, *lines, *(["first command of each arm:", *commands.values()] if commands else []))


def _resolve(options: RunOptions, console: Console, *, starts: bool = True) -> tuple[Study, tuple[str, ...], Launcher]:
    """Load the study, and choose its arms (empty for all) and its launcher.

    Without ``starts`` trials are only shown, so that the launcher needs no Slurm.
    """
    from fnostab.study.study import load_study

    on_cluster = make_launcher(options.launcher, options.cluster, options.jobs, starts=starts)
    arms, profile = options.arms, options.profile
    if options.from_experiment:
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


def make_launcher(name: str, cluster: str | None, jobs: int | None, *, starts: bool = True) -> SlurmLauncher | None:
    """Make the launcher that the options name; None for processes of this machine.

    A launcher that only shows trials, without ``starts``, needs no Slurm.

    Raises:
        FnostabError: the cluster file is not accepted, or jobs can't be submitted from here.
    """
    if name == "local":
        if cluster:
            raise ConfigError(f"--cluster {cluster} needs --launcher slurm: add that, or leave --cluster out")
        return None
    from fnostab.launch.slurm.cluster import ClusterFile, read_cluster_file
    from fnostab.launch.slurm.launcher import SlurmLauncher

    return SlurmLauncher(read_cluster_file(cluster) if cluster else ClusterFile(), jobs, starts=starts)


def load_after(options: RunOptions, console: Console) -> tuple[Study, list[str]]:
    """Load the study that the newest verdict on `from_experiment` asks for, and choose its arms.

    Raises:
        LaunchError: the verdict asks for something else first.
        FnostabError: there is no such experiment, no verdict that can be read, or a setting is not accepted.
    """
    from fnostab.study.file import read_study_file
    from fnostab.tasks.registry import hook, make_task
    from fnostab.tracking import existing_store, find_experiment, newest_study, newest_verdict

    experiment = options.from_experiment or ""
    if Path(experiment).suffix in (".csv", ".json"):
        raise LaunchError(
            f"--from {experiment}: a file holds no settings to continue with; give the name of an MLflow experiment "
            "that `fnostab decide --experiment` judged"
        )
    file = read_study_file(options.study)
    store = existing_store(options.tracking_uri)
    experiment_id = find_experiment(store, experiment)
    verdict = newest_verdict(store, experiment_id)
    if not verdict.stage_b:
        raise LaunchError(
            f"--from {experiment}: its newest verdict, {verdict.verdict} (run {verdict.run_id}), asks for no deep "
            f"test; its next step: {verdict.next_step}"
        )
    earlier = newest_study(store, experiment_id, verdict.study_runs.a).spec
    arms = ", ".join(verdict.stage_b)
    say(console, f"arms {arms} of {experiment}, by its verdict {verdict.verdict} (run {verdict.run_id})")
    deep_study = hook(file.task_name, "after")
    if deep_study is None:
        raise LaunchError(f"--from: {options.study} is of task {file.task_name}, which has no follow-up studies")
    of_epochs = {} if options.epochs is None else {make_task(earlier.task).epochs: options.epochs}
    return deep_study(file, earlier, options.profile, of_epochs | parse_settings(options.settings)), verdict.stage_b


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


def refuse_in_a_chain(chain: str, **given: object) -> None:
    """Raise ConfigError if an option is given that a chain of studies sets itself."""
    for name, value in given.items():
        if value:
            raise ConfigError(
                f"--{name.replace('_', '-')} applies to single studies, not to {chain}, a chain of them: leave it "
                f"out, or run one of them with it (`fnostab studies`)"
            )
