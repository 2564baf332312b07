"""``fnostab estimate``: estimate the memory and time of a study."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import click

from fnostab.cli.options import ARMS, JOBS, PROFILE, SEEDS, SET, parse_names, parse_seeds, parse_settings, positive
from fnostab.cli.printing import echo
from fnostab.errors import ConfigError
from fnostab.show.console import Console, say, timed


@click.command("estimate", epilog="Example: fnostab estimate stage_b --profile full")
@click.argument("study")
@SEEDS
@ARMS
@PROFILE
@JOBS
@SET
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(
    study: str,
    seeds: str | None,
    arms: str | None,
    profile: str,
    jobs: str | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show parameters, memory, and time of every arm of STUDY, and the total time. Nothing is recorded.

    Memory is computed without allocating it (on PyTorch's meta device); time is that of a few real steps of each
    network that fits. `fnostab run` shows the same table, and refuses arms that do not fit.
    """
    from fnostab.launch.local import LocalLauncher, default_jobs
    from fnostab.study.study import load_study

    chosen_seeds, chosen_arms, chosen_jobs = parse_seeds(seeds), parse_names(arms), positive("jobs", jobs)
    loaded = load_study(study, profile, parse_settings(settings))
    specs = [t.spec for t in loaded.trials(loaded.file.name, Path(), arms=chosen_arms, seeds=chosen_seeds)]
    takes = specs[0].resources
    launcher = LocalLauncher(chosen_jobs or default_jobs(takes.gpu), takes.gpu)
    call = partial(launcher.call, resources=takes)
    console = Console(stderr=as_json)
    with timed(console, "loading torch, computing memory") if takes.preloads else nullcontext():
        estimates = loaded.task.preflight(specs, min(launcher.jobs, len(specs)), launcher.gpus, call)
    if estimates is None:
        raise ConfigError(
            f"a study of task {loaded.task.name} can't be estimated: run one seed, and `fnostab watch` shows its pace"
        )
    trials = dict(Counter(s.arm for s in specs))
    with timed(console, f"measuring a step of {estimates.described}"):
        estimates.measure()
    if as_json:
        echo(json.dumps(estimates.to_json(trials) | {"study": loaded.file.name, "profile": loaded.profile}, indent=2))
        return
    console.print(estimates.table())
    say(console, estimates.summary(trials), *(f"can't run: {refusal}" for refusal in estimates.refusals()))
