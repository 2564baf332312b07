"""Find files in the working directory that programs of several trials may have overwritten."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from fnostab.record.trial import TrialSpec

MOST_ENTRIES = 20_000  # largest number of entries examined
SHOWN = 3
OF_OTHERS = ("mlflow.db", "mlruns", "mlartifacts", "__pycache__")  # also mlflow.db-journal


def overwritten(trials: Sequence[TrialSpec], output: Path, since_s: float) -> str | None:
    """Message on files in the trials' working directory that changed while they ran; None without any."""
    folders = {Path(spec.working_directory) for spec in trials if spec.argv is not None and spec.working_directory}
    if len(trials) < 2 or not folders:
        return None
    found = sorted(name for folder in folders for name in _changed(folder, output.resolve(), since_s))
    if not found:
        return None
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return (
        f"while the trials ran, files changed beside the study file: {', '.join(found[:SHOWN])}{more}. If the program "
        "writes them, trials overwrite each other's files or continue from them: let it write into {directory}"
    )


def _changed(home: Path, output: Path, since_s: float) -> Iterator[str]:
    own, seen = [os.fstat(stream) for stream in (1, 2)], 0  # of this process: `fnostab run ... > run.log`
    for folder, folders, files in os.walk(home):
        here = Path(folder)
        folders[:] = [name for name in folders if not _is_other(name) and (here / name).resolve() != output]
        for name in files:
            seen += 1
            with suppress(OSError):
                at = os.lstat(here / name)
                if not _is_other(name) and at.st_mtime >= since_s and not any(os.path.samestat(at, o) for o in own):
                    yield (here / name).relative_to(home).as_posix()
        if seen > MOST_ENTRIES:
            return


def _is_other(name: str) -> bool:
    return name.startswith((".", *OF_OTHERS))
