"""Show what running a study would start, without starting it."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from fnostab.launch.launcher import Launcher
from fnostab.launch.retries import ATTEMPTS, Retries
from fnostab.record.plurals import counted
from fnostab.record.progress import TrialProgress
from fnostab.show.console import say
from fnostab.study.study import Study


def dry_run(
    study: Study,
    *,
    experiment: str,
    output: Path,
    seeds: Sequence[int],
    arms: Sequence[str],
    launcher: Launcher,
    retries: Retries,
    console: Console,
) -> None:
    """Print how many trials would be started, and how. Only journals are read; nothing is written.

    The arguments are those of `run_study`.

    Raises:
        FnostabError: the study could not be started.
    """
    output = output.absolute()
    folder = study.folder(output, study.spec(experiment).experiment)
    trials = study.trials(experiment, output, arms=arms, seeds=seeds)
    study.task.check_start([trial.spec for trial in trials], here=launcher.here, lockstep=launcher.lockstep)
    for trial in trials:
        trial.update()
    wanted = [trial for trial in trials if retries.wants(trial)]
    side_by_side = f", {launcher.jobs} side by side:" if wanted else ""
    commands: dict[str, str] = {}
    for trial in wanted:
        if trial.spec.argv:
            commands.setdefault(trial.spec.arm, shlex.join(trial.spec.argv))
    say(
        console,
        f"study {study.described} in experiment {experiment}, journals in {folder}",
        *study.twins(arms),
        *_given_up(trials, retries),
        f"{len(wanted)} of {counted(len(trials), 'trial')} would be started{side_by_side}",
        *filter(None, [launcher.preview(wanted)]),
        *(["first command of each arm:", *commands.values()] if commands else []),
    )


def _given_up(trials: Sequence[TrialProgress], retries: Retries) -> Iterator[str]:
    given_up = [trial for trial in trials if retries.gave_up(trial)]
    if given_up:
        first, most = given_up[0], max(trial.fruitless for trial in given_up)
        yield (
            f"{len(given_up)} of {counted(len(trials), 'trial was', 'trials were')} given up, such as {first.name}: "
            f"{first.outcome} ({first.reason}); --attempts {most + ATTEMPTS} retries them"
        )
