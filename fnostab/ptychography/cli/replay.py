"""``fnostab replay``: replay a failure with every module watched."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fnostab.cli.options import OUTPUT_FOLDER, RUN_ID, TRACKING_URI, parse_settings, store_to_read
from fnostab.cli.printing import echo
from fnostab.errors import CheckpointError, TrackingError, os_errors_as
from fnostab.record import names
from fnostab.record.folders import find_black_box, folders_with
from fnostab.record.progress import TrialProgress
from fnostab.record.safe_files import write_whole
from fnostab.record.settings import digest
from fnostab.record.trial import TrialSpec
from fnostab.show.console import Console, say, timed

if TYPE_CHECKING:
    from fnostab.ptychography.training.kept_failure import KeptFailure
    from fnostab.ptychography.training.replay import Replay
    from fnostab.record.table import TrialRow

TASK = "ptychography"
EVERY_S = 3.0  # interval between progress lines
LONGEST_SUFFIX = 100  # maximum length of the settings in a folder's name


@click.command("replay", epilog="Example: fnostab replay outputs/stage_a/*/control-1")
@click.argument("source", metavar="[RUN_ID|DIRECTORY]", required=False)
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting to change: does it still fail?")
@click.option("--json", "as_json", is_flag=True, help="Print what is in replay.json.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write to.  [default: replay beside the black box, or replay-RUN_ID]",
)
@TRACKING_URI
def command(
    source: str | None, settings: tuple[str, ...], as_json: bool, output: Path | None, tracking_uri: str | None
) -> None:
    """Run a trial's failure again from its black box, and say where it began.

    DIRECTORY is a trial's folder, its artifacts or the black box itself; RUN_ID its MLflow run. Without
    either, the trials that failed are listed. Training continues from the state before the failure, exactly as
    before, and every module is recorded. With --set it is an experiment: does the failure still happen? Writes
    replay.json and replay.png.
    """
    console = Console(stderr=as_json)
    changed = parse_settings(settings)
    if source is None:
        say(console, *_failures(OUTPUT_FOLDER, tracking_uri))
        return
    if not RUN_ID.fullmatch(source) and not Path(source).exists():
        raise CheckpointError(
            f"{Path(source).absolute()} is neither a folder nor the id of a run: `fnostab replay` lists what failed"
        )
    suffix = _suffix(settings)
    if RUN_ID.fullmatch(source) and not Path(source).exists():
        output = output or Path(f"replay-{source}{suffix}")
        folder = find_black_box(_fetch(source, output, tracking_uri, console))
    else:
        folder = find_black_box(Path(source))
        output = output or folder.resolve().parent / f"replay{suffix}"
    with timed(console, "loading torch"):
        from fnostab.ptychography.training.kept_failure import KeptFailure

    failure = KeptFailure.read(folder)
    replayed = _replay(failure, changed, output, console)
    record = _write(replayed, output)
    if as_json:
        echo(record.rstrip())
        return
    from fnostab.ptychography.cli.replay_text import render

    console.print(render(replayed), highlight=False)
    for name in ("replay.png", "replay.json"):
        say(console, str(output / name))


def _failures(output: Path, tracking_uri: str | None) -> list[str]:
    """List the trials that can be replayed, from journals under ``output``, else from the store's newest study.

    Raises:
        FnostabError: there is no such trial, or a record can't be read.
    """
    folders = [each for each in folders_with(output, "trial.json") if (each / "artifacts" / names.BLACK_BOX).is_dir()]
    if folders and tracking_uri is None:
        trials = [TrialProgress(TrialSpec.read(folder / "trial.json"), folder) for folder in folders]
        for trial in trials:
            trial.update()
        return [f"failed, in {output.absolute()}:", *(_line(trial, str(trial.directory)) for trial in trials)]
    from fnostab.tracking import find_experiment, newest_experiment, newest_study, trial_rows

    try:
        store = store_to_read(tracking_uri)
        experiment = newest_experiment(store)
        experiment_id = find_experiment(store, experiment)
        study = newest_study(store, experiment_id)
        failed = [row for row in trial_rows(store, experiment_id, study) if row.failed and study.spec.task == TASK]
    except TrackingError as error:
        raise CheckpointError(f"no trial that can be replayed is under {output.absolute()}, and {error}") from error
    if not failed:
        raise CheckpointError(
            f"no trial that can be replayed is under {output.absolute()}, and none of experiment {experiment} in "
            f"{store.address} can be replayed: only failed trials of the built-in task keep a black box; "
            "give the folder of one, or the id of its run"
        )
    at = ["--tracking-uri", tracking_uri] if tracking_uri else []
    return [f"failed, of experiment {experiment} in {store.address}:", *(_line(r, r.run_id or "", *at) for r in failed)]


def _line(trial: TrialProgress | TrialRow, *words: str) -> str:
    step = "" if trial.failure_step is None else f" at step {trial.failure_step}"
    return f"  {trial.arm}-{trial.seed}  {trial.outcome}{step}  {shlex.join(['fnostab', 'replay', *words])}"


def _suffix(settings: tuple[str, ...]) -> str:
    """Suffix of the output folder, so that experiments overwrite neither the exact replay nor each other."""
    text = ",".join(settings)
    safe = re.sub(r"[^A-Za-z0-9=.,_-]", "_", text[:LONGEST_SUFFIX])
    if safe != text:
        safe += f"-{digest(text)[:8]}"
    return f"-{safe}" if safe else ""


def _fetch(run_id: str, output: Path, tracking_uri: str | None, console: Console) -> Path:
    with timed(console, "loading MLflow, fetching the black box"):
        from fnostab.tracking import existing_store, fetch_black_box

        return fetch_black_box(existing_store(tracking_uri), run_id, output)


def _replay(failure: KeptFailure, changed: dict[str, Any], output: Path, console: Console) -> Replay:
    from fnostab.ptychography.training.replay import replay

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # Lightning sets the level at import
    what = f"{failure.trial.name} ({failure.outcome} at step {failure.failure_step})"
    console.print(f"replaying {what} ...", highlight=False)
    said = time.monotonic()

    def progress(step: int, last: int) -> None:
        nonlocal said
        if time.monotonic() - said >= EVERY_S:
            console.print(f"  step {step} of about {last}", highlight=False)
            said = time.monotonic()

    return replay(failure, changed, data_dir=_data_dir(failure, output), progress=progress)


def _data_dir(failure: KeptFailure, output: Path) -> Path:
    """Cache of data sets: the trial's own if it exists on this machine and is writable, else below ``output``."""
    own = Path(failure.trial.shared_dir)
    usable = own.is_absolute() and own.is_dir() and os.access(own, os.W_OK)
    return own if usable else output / "datasets"


def _write(replayed: Replay, output: Path) -> str:
    """Write replay.json and replay.png; return the JSON text."""
    from fnostab.ptychography.figures.replay import replay_figure
    from fnostab.ptychography.training.replay_record import replay_record, replayed_steps

    record = json.dumps(replay_record(replayed), indent=2, allow_nan=False) + "\n"
    with os_errors_as(CheckpointError, f"can't write to {output}", "name another --output"):
        output.mkdir(parents=True, exist_ok=True)
        write_whole(output / "replay.json", record)
        replay_figure(replayed_steps(replayed)).savefig(output / "replay.png")
    return record
