"""Hash a command's code: the files that its template names, and the files of `code`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from fnostab.errors import ConfigError
from fnostab.record.settings import file_sha256, shown
from fnostab.tasks.command.template import Template

__all__ = ["code_hashes"]

MOST_FILES = 2_000
MOST_BYTES = 200_000_000
IGNORED = ("__pycache__", ".git")


def code_hashes(template: Template, globs: Sequence[str], folder: Path) -> dict[str, str]:
    """SHA-256 of each file by its path from the study's folder, in the order of their paths.

    A file that a word of the template names counts if it exists, inside the folder or not; `globs` reach only files
    inside the folder, and links may lead only to files inside it.

    Raises:
        ConfigError: a pattern names no file or leads out of the folder, or the files are too large or unreadable.
    """
    home = folder.resolve()
    words = [word for word in template.words if not Path(word).is_absolute()]  # no interpreters
    found: dict[str, Path] = {word: home / word for word in words if _is_file(home / word)}
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
