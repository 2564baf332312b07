"""Keep the end of a process's stderr while showing all of it.

The program writes to a file, never to a pipe, so that it can continue if the reading process dies.
"""

import os
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from fnostab.record.safe_files import open_regular

STDERR_FILE = "stderr.log"  # of a trial started by a launcher
TAIL_BYTES = 16_384
POLL_S = 0.05
HELD_ELSEWHERE = ": wait for it to end"  # end of the error of a process that finds the trial taken


class StderrTail:
    """Stderr of a program: the trial's ``stderr.log``, copied to this process's stderr unless it is the same file.

    Attributes:
        target: value for ``subprocess.Popen(stderr=...)``; None if the program inherits this process's stderr.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] = open(path, "ab")  # noqa: SIM115 - closed by __exit__
        self._start = self._shown = os.fstat(self._file.fileno()).st_size
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self.target: IO[bytes] | None = None if self._is_own() else self._file

    def __enter__(self) -> Self:
        if self.target is not None:
            self._thread = threading.Thread(target=self._copy, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()
        self._file.close()

    def say(self, line: str) -> None:
        """Write a line to the log, like the program."""
        os.write(self._file.fileno(), f"{line}\n".encode())

    @property
    def text(self) -> str:
        """End of the text written since the log was opened, without what a second launcher of the trial wrote."""
        lines = tail_of(self.path, self._start).splitlines(keepends=True)
        return "".join(line for line in lines if not line.rstrip().endswith(HELD_ELSEWHERE))

    def _is_own(self) -> bool:
        try:
            return os.path.samestat(os.fstat(2), os.fstat(self._file.fileno()))
        except OSError:  # this process has no stderr
            return False

    def _copy(self) -> None:
        with open(self.path, "rb") as file:
            file.seek(self._shown)
            while True:
                done = self._done.is_set()  # before the read, so that the last read reaches the end
                while data := file.read(TAIL_BYTES):
                    try:
                        sys.stderr.buffer.write(data)
                        sys.stderr.flush()
                    except (OSError, ValueError, AttributeError):  # nobody reads it
                        return
                if done:
                    return
                self._done.wait(POLL_S)


def tail_of(path: Path, start: int = 0) -> str:
    """End of a log, at most 16 KiB, from byte ``start`` on; empty if it can't be read."""
    try:
        with open_regular(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def tail_since(path: Path, since_ms: int | None) -> str:
    """End of a log that was written to since ``since_ms`` (Unix milliseconds); empty if it was not, or if unknown."""
    try:
        return "" if since_ms is None or path.stat().st_mtime * 1000 < since_ms else tail_of(path)
    except OSError:
        return ""
