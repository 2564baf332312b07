"""Find scripts that ignore their seed: trials of one arm whose curves are identical."""

import itertools
import math
from collections.abc import Mapping
from pathlib import Path

from fnostab.errors import FnostabError, JournalError
from fnostab.record import names
from fnostab.record.journal_outcomes import read_recorded
from fnostab.record.lines import FILE_NAME
from fnostab.record.trial import TrialSpec

IGNORES_SEED = "the script ignores its seed"


def same_curves(directories: Mapping[tuple[str, int], Path]) -> list[tuple[str, int, int]]:
    """Pairs of seeds for which the training and validation values of an arm's ended trials are identical.

    Trials whose journal is missing or damaged are skipped.

    Returns:
        (arm, first seed, other seed) for each seed whose curves repeat those of an earlier one.
    """
    same = []
    for arm, trials in itertools.groupby(sorted(directories.items()), key=lambda item: item[0][0]):
        first: dict[str, int] = {}
        for (_, seed), directory in trials:
            curves = _curves(directory)
            if curves is None:
                continue
            if curves in first:
                same.append((arm, first[curves], seed))
            else:
                first[curves] = seed
    return same


def twin_seed(directory: Path, spec: TrialSpec) -> int | None:
    """Another seed of a trial's arm with identical curves; None if there is none."""
    trials = {(spec.arm, spec.seed): directory}
    for path in directory.parent.glob(f"{spec.arm}-*/trial.json"):
        try:
            other = TrialSpec.read(path)
        except FnostabError:  # only its own trial's errors matter
            continue
        same_arm = (other.arm, other.config_hash) == (spec.arm, spec.config_hash) and other.seed != spec.seed
        if same_arm and (path.parent / FILE_NAME).exists():
            trials[other.arm, other.seed] = path.parent
    pairs = [(one, two) for _, one, two in same_curves(trials) if spec.seed in (one, two)]
    return next((one if two == spec.seed else two for one, two in pairs), None)


def _curves(directory: Path) -> str | None:
    """Training loss and validations of a trial as comparable text; None if they can't be read."""
    try:
        recorded = read_recorded(directory)
    except JournalError:
        return None
    curves = {
        name: sorted(curve.items())
        for name, curve in recorded.curves.items()
        if name == names.TRAIN_LOSS or (name.startswith(names.VAL_PREFIX) and not name.endswith(("_best", "_last")))
    }
    finite = {value for curve in curves.values() for _, value in curve if math.isfinite(value)}
    return repr(sorted(curves.items())) if len(finite) > 1 else None  # one equal number proves nothing
