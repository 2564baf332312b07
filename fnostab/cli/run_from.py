"""``fnostab run --from``: load a study with the arms that an earlier verdict asks for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fnostab.cli.options import parse_settings
from fnostab.errors import LaunchError
from fnostab.show.console import say

if TYPE_CHECKING:
    from rich.console import Console

    from fnostab.cli.execution import RunOptions
    from fnostab.study.study import Study


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
