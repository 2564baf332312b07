"""Find folders of records. All commands follow links to such folders in the same way."""

import os
from collections.abc import Iterator
from pathlib import Path

from fnostab.errors import CheckpointError, JournalError
from fnostab.record.lines import ARCHIVE_NAME, FILE_NAME
from fnostab.record.names import BLACK_BOX, BLACK_BOX_FILE

TRIAL_FILE = "trial.json"
LIVE_FILE = "live.json"  # of a script's own run, which is part of no study
STUDY_FILE = "study.json"
OF_TRIALS = (TRIAL_FILE, LIVE_FILE, FILE_NAME, ARCHIVE_NAME)  # any of them marks the folder of a trial
HELD_BEHIND_A_LINK = tuple(  # a link to anything else, such as a data set, is not followed
    f"{above}{name}" for above in ("", "*/", "*/*/") for name in (TRIAL_FILE, LIVE_FILE, STUDY_FILE)
)


def trial_name(arm: str, seed: int | str) -> str:
    """Name of a trial within its study, as in ``control-3``."""
    return f"{arm}-{seed}"


def trial_folders(study: Path, arm: str, seed: int | str, config_hash: str) -> tuple[Path, Path]:
    """Folders that may hold a trial's records: ``control-3``, or with a hash if the arm had other settings before."""
    name = trial_name(arm, seed)
    return study / name, study / f"{name}-{config_hash[:8]}"


def folders_with(path: str | Path, *files: str) -> list[Path]:
    """Folders at or below ``path`` that hold one of ``files``, sorted by their paths, each once.

    A folder that is reached both directly and through a link has its own path.
    """
    found, seen, tops = list[Path](), set[str](), [Path(path)]
    while tops:
        links = [link for top in tops for link in _walk(top, files, found, seen)]
        tops = sorted(links, key=os.path.realpath)  # a folder before its subfolders
    return sorted(found)


def insist_on_trials(path: str | Path) -> list[Path]:
    """Folders of trials at or below ``path``, sorted, including those whose ``trial.json`` is lost.

    Raises:
        JournalError: there is none.
    """
    return _insist("trial", path, *OF_TRIALS)


def insist_on_studies(path: str | Path) -> list[Path]:
    """Folders of studies at or below ``path``, sorted.

    Raises:
        JournalError: there is none.
    """
    return _insist("study", path, STUDY_FILE)


def _insist(kind: str, path: str | Path, *files: str) -> list[Path]:
    if found := folders_with(path, *files):
        return found
    raise JournalError(f"no {kind} found under {Path(path).absolute()}: name a {kind}'s folder, or one above it")


def find_black_box(path: Path) -> Path:
    """Find the folder of a black box at ``path``, or in the trial's folder ``path``.

    Raises:
        CheckpointError: there is no black box.
    """
    for folder in (path, path / BLACK_BOX, path / "artifacts" / BLACK_BOX):
        if (folder / BLACK_BOX_FILE).is_file():
            return folder
    raise CheckpointError(
        f"no black box in {path}: failed trials of the built-in task keep one in artifacts/{BLACK_BOX}, no others"
    )


def _walk(top: Path, files: tuple[str, ...], found: list[Path], seen: set[str]) -> Iterator[Path]:
    """Add the folders below ``top`` to ``found`` without following links; yield the links to follow."""
    for folder, inner, names in os.walk(top):
        real = os.path.realpath(folder)
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        if any(name in names or name in inner for name in files):  # also a folder of that name
            found.append(Path(folder))
        for name in inner:
            link = Path(folder, name)
            if not link.is_symlink() or Path(real).is_relative_to(os.path.realpath(link)):  # a loop, or a whole disk
                continue
            if any(next(link.glob(held), None) for held in HELD_BEHIND_A_LINK):
                yield link
