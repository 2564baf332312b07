"""``fnostab train``: one trial."""

import logging
import signal
import sys
from pathlib import Path

import click



@click.command("train")
@click.option(
    "--trial", "trial_file", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Its trial.json."
)
def command(trial_file: Path) -> None:
    """Train the trial that FILE describes; its journal and artifacts are written beside it.

    Needs no MLflow: `fnostab sync` sends the journal. To run one trial of a study and record it at
    once: `fnostab run STUDY --arms ARM --seeds SEED,`.
    """
    from fnostab.trial import TrialSpec

    signal.signal(signal.SIGTERM, _terminate)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    spec = TrialSpec.read(trial_file)

    from fnostab.outcomes import TRAINING_OUTCOMES
    from fnostab.training.trial import run_trial

    outcome = run_trial(spec, trial_file.parent)
    click.echo(f"{spec.arm}-{spec.seed}: {outcome}")
    sys.exit(0 if outcome in TRAINING_OUTCOMES else 1)


def _terminate(signum: int, frame: object) -> None:
    raise SystemExit(f"ended by {signal.Signals(signum).name}")
