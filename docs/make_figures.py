"""The gallery in docs/images, drawn from the journals of a study that was run.

fnostab run stage_a --profile small --seeds 6
python -m docs.make_figures outputs/stage_a/HASH
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from fnostab.figures import (
    LossCurve,
    failure_rate_forest,
    grad_norm_fan,
    kaplan_meier_figure,
    loss_curves,
    loss_strip,
    make_fan,
)
from fnostab.figures.arms import FailureRate
from fnostab.figures.fan import Curve
from fnostab.ptychography.figures.trial import history_figure
from fnostab.ptychography.training.trial_figures import VALIDATION, History, read_history
from fnostab.record import names
from fnostab.record.journal import FILE_NAME, Event, Point, read_journal
from fnostab.record.outcomes import Outcome
from fnostab.record.table import TrialRow
from fnostab.record.trial import StudySpec, TrialSpec
from fnostab.stats.proportions import wilson
from fnostab.stats.survival import kaplan_meier

IMAGES = Path(__file__).parent / "images"
DOTS_PER_INCH = 130
PALETTE = 96  # colours of the reconstruction, which is large with all of them

Trials = dict[str, list[tuple[TrialRow, History, Path]]]  # by arm


def main() -> None:
    """Draw every figure of the gallery."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder of a study that was run: outputs/EXPERIMENT/HASH")
    folder = parser.parse_args().study
    study = StudySpec.read(folder / "study.json")
    trials: Trials = {arm: [_read(path) for path in sorted(folder.glob(f"{arm}-*"))] for arm in study.arms}
    IMAGES.mkdir(exist_ok=True)
    for name, figure in (_of_arms(trials, study) | _of_trials(trials)).items():
        figure.savefig(IMAGES / f"{name}.png", dpi=DOTS_PER_INCH)
    best = min((each for of_arm in trials.values() for each in of_arm if each[0].loss), key=lambda t: t[0].loss)
    with Image.open(best[2] / "artifacts" / "reconstruction_0.png") as picture:
        picture.convert("RGB").quantize(PALETTE).save(IMAGES / "reconstruction.png", optimize=True)


def _read(directory: Path) -> tuple[TrialRow, History, Path]:
    spec = TrialSpec.read(directory / "trial.json")
    values: dict[str, float] = {}
    end: dict[str, object] = {}
    for record, _ in read_journal(directory / FILE_NAME):
        if isinstance(record, Point):
            values |= record.values
        elif isinstance(record, Event) and record.name == names.OUTCOME_EVENT:
            end = dict(record.payload)
    row = TrialRow(
        spec.arm,
        spec.seed,
        Outcome(end["outcome"]),
        values.get(names.VAL_LOSS_BEST),
        end["failure_step"],
        int(values[names.LAST_STEP]),
    )
    return row, read_history(directory / FILE_NAME), directory


def _of_arms(trials: Trials, study: StudySpec) -> dict[str, Figure]:
    rows = {arm: [row for row, _, _ in of_arm] for arm, of_arm in trials.items()}
    failed = {arm: sum(row.failed for row in of_arm) for arm, of_arm in rows.items()}
    ends = {arm: [r.last_step if r.failure_step is None else r.failure_step for r in rows[arm]] for arm in rows}
    survival = {arm: kaplan_meier(ends[arm], [r.failed for r in rows[arm]]) for arm in rows}
    lost = {arm: [r.failure_step for r in rows[arm] if r.outcome is Outcome.NONFINITE] for arm in rows}
    rates = {arm: FailureRate(failed[arm], len(rows[arm]), wilson(failed[arm], len(rows[arm]))) for arm in rows}
    control = make_fan([_norms(*each[:2]) for each in trials[study.control]])
    losses = {arm: [_losses(row, history) for row, history, _ in trials[arm]] for arm in rows}
    return {
        "forest": failure_rate_forest(rates),
        "kaplan_meier": kaplan_meier_figure(survival, lost),
        "loss_strip": loss_strip(rows, metric=study.metric.key),
        "loss_curves": loss_curves(losses, metric="validation loss"),
        "fan": grad_norm_fan(control),
    }


def _of_trials(trials: Trials) -> dict[str, Figure]:
    everything = [each for of_arm in trials.values() for each in of_arm]
    row, history, _ = next((each for each in everything if each[0].failed), everything[0])
    panels = list(history.panels.values())
    of_one = history_figure(panels, nonfinite_steps=history.nonfinite_steps, failure_step=row.failure_step)
    return {"history": of_one}


def _norms(row: TrialRow, history: History) -> Curve:
    steps, values = next(iter(history.panels["grad_norm"].curves.values()))
    finite = np.isfinite(values)
    return Curve(row.seed, steps[finite], values[finite], np.array(history.nonfinite_steps, dtype=np.int64))


def _losses(row: TrialRow, history: History) -> LossCurve:
    steps, values = history.panels["loss"].marks[VALIDATION]
    epochs, finite = (steps + 1) / (steps[0] + 1), np.isfinite(values)
    lost = [(step + 1) / (steps[0] + 1) for step in history.nonfinite_steps]
    return LossCurve(row.seed, epochs[finite], values[finite], row.failed, lost)


if __name__ == "__main__":
    main()
