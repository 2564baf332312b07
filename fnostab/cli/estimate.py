"""``fnostab estimate``: what memory and time a study takes."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from fnostab.cli.options import parse_names, parse_seeds, parse_settings, positive

if TYPE_CHECKING:
    from fnostab.ptychography.preflight import Preflight


@click.command("estimate")
@click.argument("study")
@click.option("--seeds", metavar="N|LIST", help="How many seeds, or which: 10, or 0,3,5.  [default: the study's]")
@click.option("--arms", metavar="LIST", help="Only these arms, separated by commas.  [default: all]")
@click.option("--profile", default="auto", show_default=True, help="Size: full, small, or auto (full on a GPU).")
@click.option("--jobs", metavar="N", help="Trials side by side.  [default: one a GPU, or one a core]")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Any setting, as model.fno_blocks=8.")
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
    """Show parameters, memory, and time of every arm of STUDY, and the time of all of it. Nothing is recorded.

    Memory is computed on a device that holds no numbers; time is that of a few real steps of each network that
    fits. `fnostab run` shows the same table, and refuses arms that do not fit.
    """
    from fnostab.launch.local import LocalLauncher, default_jobs
    from fnostab.study.study import load_study

    chosen_seeds, chosen_arms, chosen_jobs = parse_seeds(seeds), parse_names(arms), positive("jobs", jobs)
    loaded = load_study(study, profile, parse_settings(settings))
    specs = loaded.trials(loaded.file.name, "", arms=chosen_arms, seeds=chosen_seeds)
    device = specs[0].config.execution.device
    launcher = LocalLauncher(chosen_jobs or default_jobs(device), device)

    from fnostab.ptychography.preflight import Preflight

    estimates = Preflight({s.arm: s.config for s in specs}, min(launcher.jobs, len(specs)), launcher.gpus)
    trials = {arm: sum(s.arm == arm for s in specs) for arm in estimates.estimates}
    console = Console(stderr=as_json)
    console.print(f"measuring a step of {estimates.described} ...", highlight=False)
    estimates.measure()
    if as_json:
        click.echo(
            json.dumps(_answer(estimates, trials) | {"study": loaded.file.name, "profile": loaded.profile}, indent=2)
        )
        return
    console.print(estimates.table())
    for line in (estimates.summary(trials), *(f"can't run: {refusal}" for refusal in estimates.refusals())):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _answer(estimates: Preflight, trials: dict[str, int]) -> dict[str, Any]:
    arms = {
        arm: {
            "blocks": estimate.config.model.fno_blocks,
            "batch_size": estimate.config.training.batch_size,
            "size": estimate.size and asdict(estimate.size),
            "snapshot_bytes": estimate.snapshot_bytes,
            "needed_bytes": estimate.needed_bytes,
            "fits": estimates.fits(estimate),
            "step_s": estimate.step_s,
            "trial_s": estimate.trial_s,
            "trials": trials[arm],
        }
        for arm, estimate in estimates.estimates.items()
    }
    return {
        "jobs": estimates.jobs,
        "available_bytes": estimates.available_bytes,
        "study_s": estimates.study_s(trials),
        "refusals": estimates.refusals(),
        "arms": arms,
    }
