"""Print a row for each trial under some folders, from its journal alone: what its success is judged by.

python results/question/successes.py outputs/stage_a outputs/cure_again > results/question/successes.csv

``outcome`` is that by today's rules, ``without_details`` that by all of them but `monitor.stagnated_detail`, as it was
before. Measures are those of the last validation; ``patch_variation`` is the lowest value below which it lay at three
validations in a row.
"""

import csv
import sys
from pathlib import Path

from fnostab.ptychography import metric_names
from fnostab.ptychography.settings import MonitorConfig
from fnostab.record import names
from fnostab.record.journal_outcomes import judge_recorded, read_recorded
from fnostab.record.lines import FILE_NAME
from fnostab.record.trial import TrialSpec

LAST = {
    "spread": metric_names.SPREAD,
    "details": metric_names.DETAIL_CORRELATION,
    "twin_share": metric_names.TWIN_SHARE,
    "ssim_amp": metric_names.VAL_SSIM_AMP,
    "ssim_phase": metric_names.VAL_SSIM_PHASE,
}


def row(directory: Path) -> dict[str, str | int | float]:
    """One trial."""
    spec, recorded = TrialSpec.read(directory / "trial.json"), read_recorded(directory)
    if recorded.by_rules:
        recorded.announced = None  # judged again, by both rules
    outcomes = []
    for left_out in ({}, {"stagnated": {}}):
        rules = MonitorConfig().outcome_rules.model_copy(update=left_out)
        judgement, _ = judge_recorded(recorded, spec.model_copy(update={"rules": rules}))
        assert judgement is not None
        outcomes.append(str(judgement.outcome))
    curves = recorded.curves
    variation = [value for _, value in sorted(curves[metric_names.PATCH_VARIATION].items())]
    in_a_row = [max(variation[i : i + 3]) for i in range(len(variation) - 2)]
    loss = min(curves[spec.judged].values()) / curves[names.CONSTANT_LOSS][0]
    return {
        "learning_rate": spec.settings["training.learning_rate"],
        "data_seed": spec.settings["data.seed"],
        "epochs": spec.settings["training.epochs"],
        "arm": spec.arm,
        "seed": spec.seed,
        "outcome": outcomes[0],
        "without_details": outcomes[1],
        "loss_vs_constant": f"{loss:.3f}",
        "patch_variation": f"{min(in_a_row):.1e}",
        **{column: f"{curves[name][max(curves[name])]:.3f}" for column, name in LAST.items()},
    }


def main(folders: list[str]) -> None:
    """Print the table as CSV."""
    rows = [row(path.parent) for folder in folders for path in sorted(Path(folder).glob(f"**/{FILE_NAME}"))]
    writer = csv.DictWriter(sys.stdout, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda r: (r["learning_rate"], -int(r["epochs"]), r["arm"], r["seed"])))


if __name__ == "__main__":
    main(sys.argv[1:])
