"""Write files atomically: each is either complete or unchanged."""

import os
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(path: Path, content: str | bytes, *, to_disk: bool = False) -> None:
    """Write a file atomically: a reader sees the old content or the new, even if this process dies.

    A link in its place is replaced, never followed. One process at a time may write one file.

    Args:
        path: path in an existing folder.
        content: bytes, or text, which is written as UTF-8.
        to_disk: wait for the disk, so that the content survives the death of the machine.

    Raises:
        OSError: the file can't be written; the old content stays.
    """
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)  # of a process that was killed
    try:
        with open(partial, "xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if to_disk:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
