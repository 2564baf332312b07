"""What a program is made of, as far as it belongs to the identity of its trials: hashes of its files."""

from collections.abc import Sequence
from pathlib import Path

from fnostab.errors import ConfigError
from fnostab.record.settings import file_sha256

__all__ = ["hashes"]

MOST_FILES = 2_000
LARGEST_BYTES = 200_000_000  # of all of them


def hashes(folder: Path, words: Sequence[str], globs: Sequence[str]) -> dict[str, str]:
    """SHA-256 of the files that a command names and that globs find, by their path within ``folder``.

    Args:
        folder: of the study file.
        words: of the command; those that are files of the folder count.
        globs: as ``src/**/*.py``; what they find outside the folder, by ``..`` or a link, does not count.

    Raises:
        ConfigError: a glob finds nothing or is not accepted, there are too many files, or one can't be read.
    """
    home = folder.resolve()
    found = {folder / word for word in words if not Path(word).is_absolute() and "{" not in word}
    for glob in globs:
        try:
            matched = [path for path in folder.glob(glob) if path.is_file()]
        except (ValueError, NotImplementedError) as error:
            raise ConfigError(f"code: {glob!r} is not accepted: {error}") from None
        if not matched:
            raise ConfigError(f"code: {glob!r} finds no file in {folder}")
        found |= set(matched)
        if len(found) > MOST_FILES:
            raise ConfigError(f"code: more than {MOST_FILES} files: name fewer")
    files = sorted(path for path in found if path.is_file() and path.resolve().is_relative_to(home))
    try:
        if sum(path.stat().st_size for path in files) > LARGEST_BYTES:
            raise ConfigError(f"code: more than {LARGEST_BYTES // 1_000_000} MB: name fewer files")
        return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}
    except OSError as error:
        raise ConfigError(f"code: can't read {error.filename}: {error.strerror}") from None
