"""Hash a command's code: the files that its template and its settings name, and the files of `code`."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fnostab.errors import ConfigError
from fnostab.record.settings import file_sha256, shown
from fnostab.tasks.command.template import Template

MOST_FILES = 2_000
MOST_BYTES = 200_000_000
IGNORED = ("__pycache__", ".git")
SCRIPTS = (  # suffixes of files that count as code at absolute paths, where interpreters and data are named too
    ".py",
    ".sh",
    ".jl",
    ".r",
    ".lua",
    ".ipynb",
)


def code_hashes(template: Template, globs: Sequence[str], folder: Path) -> dict[str, str]:
    """Compute the SHA-256 of each file of the code, by its path relative to the study's folder and sorted by path.

    The template names a file as a word, behind ``=``, or as the module behind ``-m``; at an absolute path outside the
    folder only scripts count. `globs` match only files inside the folder, and links may lead only to files inside it.

    Raises:
        ConfigError: a pattern names no file or leads out of the folder, or the files are too large or unreadable.
    """
    home = folder.resolve()
    found = _named(template.words, home)
    for pattern in globs:
        inside = {path.relative_to(home).as_posix(): path for path in _matches(home, pattern)}
        if not inside:
            raise ConfigError(f"code: {shown(pattern)} names no file in {folder}")
        found |= inside
    if len(found) > MOST_FILES:
        raise ConfigError(f"code: {len(found)} files; at most {MOST_FILES} are accepted: name fewer")
    total = sum(path.stat().st_size for path in found.values())
    if total > MOST_BYTES:
        raise ConfigError(f"code: {total / 1e6:.0f} MB of files; at most {MOST_BYTES // 1_000_000} MB are accepted")
    try:
        return {name: file_sha256(path) for name, path in sorted(found.items())}
    except OSError as error:
        raise ConfigError(f"code: can't read {error.filename}: {error.strerror}") from error


def hashes_of_values(values: Iterable[Any], folder: Path) -> dict[str, str]:
    """Compute the SHA-256 of each file inside the study's folder that a setting names, by its relative path.

    Files of more than 200 MB are left out: they are data.

    Raises:
        ConfigError: a file can't be read.
    """
    home = folder.resolve()
    names = {value for value in values if isinstance(value, str) and not Path(value).is_absolute()}
    found = {name: home / name for name in sorted(names) if _is_file(home / name)}
    try:
        return {name: file_sha256(path) for name, path in found.items() if path.stat().st_size <= MOST_BYTES}
    except OSError as error:
        raise ConfigError(f"can't read {error.filename}: {error.strerror}") from error


def _named(words: Sequence[str], home: Path) -> dict[str, Path]:
    """Find the files that words name, by path relative to ``home``; scripts outside it by the path as written."""
    found = {}
    for before, word in itertools.pairwise(("", *words)):
        module = word.replace(".", "/")
        for name in (f"{module}.py", f"{module}/__main__.py") if before == "-m" else (word, word.partition("=")[2]):
            path = home / name
            if not name or not _is_file(path):
                continue
            if not Path(name).is_absolute():
                found[name] = path
            elif path.suffix.lower() in SCRIPTS:
                inside = path.resolve().is_relative_to(home)
                found[path.resolve().relative_to(home).as_posix() if inside else name] = path
    return found


def _matches(home: Path, pattern: str) -> Iterator[Path]:
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise ConfigError(f"code: {shown(pattern)} leads out of the study's folder")
    count = 0
    try:
        for path in home.glob(pattern):
            if any(part in IGNORED for part in path.relative_to(home).parts):
                continue
            if not _is_file(path) or not path.resolve().is_relative_to(home):
                continue
            count += 1
            if count > MOST_FILES:
                raise ConfigError(f"code: {shown(pattern)} names more than {MOST_FILES} files: name fewer")
            yield path
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(f"code: {shown(pattern)} is not a pattern of paths: {error}") from None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a word that can't be a path
        return False
