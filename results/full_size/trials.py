"""Print a row for each trial of the full-size study, from its journals alone, as in README.md.

python results/full_size/trials.py outputs/full_size_stress
"""

import sys
from pathlib import Path

from fnostab.ptychography import metric_names
from fnostab.record import names
from fnostab.record.attempt import last_attempt
from fnostab.record.journal_outcomes import read_recorded
from fnostab.record.lines import FILE_NAME
from fnostab.record.outcomes import TRAINING_OUTCOMES
from fnostab.record.trial import TrialSpec

LAST = {
    "validation loss": "val/mae_val_Amp_loss",
    "amplitude SSIM": metric_names.VAL_SSIM_AMP,
    "phase SSIM": metric_names.VAL_SSIM_PHASE,
    "details": metric_names.DETAIL_CORRELATION,
}


def row(directory: Path) -> list[str] | None:
    """Cells of a trial that has a training outcome."""
    end = last_attempt(directory / FILE_NAME).end
    if end is None or end.payload["outcome"] not in TRAINING_OUTCOMES:
        return None
    spec, curves = TrialSpec.read(directory / "trial.json"), read_recorded(directory).curves
    norms = curves[names.GRAD_NORM].values()
    values = [curves[name][max(curves[name])] for name in LAST.values()]
    return [spec.arm, str(spec.seed), end.payload["outcome"], f"{max(norms):.1e}", *(f"{v:.3f}" for v in values)]


def main(folder: Path) -> None:
    """Print the table."""
    rows = [row(path.parent) for path in sorted(folder.glob(f"*/*/{FILE_NAME}"))]
    table = [["arm", "seed", "outcome", "largest gradient norm", *LAST], ["---"] * (4 + len(LAST)), *filter(None, rows)]
    print("\n".join(f"| {' | '.join(cells)} |" for cells in table))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
