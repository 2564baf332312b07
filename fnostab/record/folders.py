"""Find folders of records; links to such folders are followed alike by all commands."""

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["folders_with"]

HELD_BEHIND_A_LINK = (  # what makes a link one to records: a link to anything else, as a data set, is not followed
    "trial.json",
    "live.json",
    "study.json",
    "*/live.json",
    "*/study.json",
    "*/*/study.json",
)


def folders_with(path: str | Path, *files: str) -> list[Path]:
    """Folders at or below ``path`` that hold one of ``files``, sorted by their paths, each once."""
    return sorted(_below(Path(path), files, set()))


def _below(top: Path, files: tuple[str, ...], seen: set[str]) -> Iterator[Path]:
    for folder, inner, found in os.walk(top):
        real = os.path.realpath(folder)
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        if any(name in found or name in inner for name in files):  # a folder of that name is to be named, too
            yield Path(folder)
        for name in inner:
            link = Path(folder, name)
            if not link.is_symlink() or Path(real).is_relative_to(os.path.realpath(link)):  # a loop, or all of a disk
                continue
            if any(next(link.glob(held), None) for held in HELD_BEHIND_A_LINK):
                yield from _below(link, files, seen)
