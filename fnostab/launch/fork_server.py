"""Launcher's side of the fork server: trials as forks of one process that has made their imports.

The process itself is in `fnostab.launch.forking`. Both say JSON, a line each, over a socket. The launcher:
``{"trial": 3, "files": [...], "log": "..."}``, and ``{"trial": 3, "signal": 15}``. The process: ``{"trial": 3}`` when
it is started, ``{"trial": 3, "status": 0}`` when it has ended, with the status as `subprocess.Popen.returncode` has
it.
"""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

__all__ = ["ForkServer", "ForkedTrial"]


class ForkServer:
    """A process that forks trials until this object is gone.

    Args:
        environment: of all its trials.
        log: of what it says before its first fork.
        preloads: modules that it imports first.

    Attributes:
        status: how it ended, once `listen` has come to its end.

    Raises:
        OSError: it can't be started.
    """

    def __init__(self, environment: Mapping[str, str], log: IO[bytes], preloads: Sequence[str]) -> None:
        self._socket, its_end = socket.socketpair()
        with its_end:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fnostab", "train", "--fork-server", ",".join(preloads)],
                env=environment,
                stdin=its_end.fileno(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.status: int | None = None
        self._asked = 0  # how often, which numbers the trials
        self._trials: weakref.WeakValueDictionary[int, ForkedTrial] = weakref.WeakValueDictionary()  # they know this
        self._unread = b""
        self._imports = True
        weakref.finalize(self, _end, self._socket, self._process)

    def train(self, files: Sequence[Path], log: Path) -> "ForkedTrial":
        """Ask for a fork that trains what ``files`` describe, as soon as the imports are done."""
        trial = self._trials[self._asked] = ForkedTrial(self, self._asked)
        self.say(self._asked, files=[str(file) for file in files], log=str(log))
        self._asked += 1
        return trial

    def say(self, trial: int, **what: object) -> None:
        """Send a request. A process that is gone has said so, or will: see `listen`."""
        self._socket.settimeout(None)
        with contextlib.suppress(OSError):
            self._socket.sendall(json.dumps({"trial": trial, **what}).encode() + b"\n")

    def kill(self, trial: int) -> None:
        """End a trial; all of them while the imports last, in which nobody heeds requests."""
        if self._imports:
            self._process.kill()
        self.say(trial, signal=signal.SIGKILL)

    def listen(self, timeout_s: float | None) -> None:
        """Take in what it has said; if that is nothing, wait so long, None for ever."""
        while self.status is None:
            self._socket.settimeout(timeout_s)
            timeout_s = 0.0  # for what may have come with it
            try:
                said = self._socket.recv(65536)
            except (BlockingIOError, TimeoutError):
                return
            except ConnectionResetError:  # it ended with requests unread
                said = b""
            *lines, self._unread = (self._unread + said).split(b"\n")
            self._imports = self._imports and not lines
            for answer in map(json.loads, lines):
                if trial := self._trials.get(answer["trial"]):
                    trial.started, trial.returncode = True, answer.get("status")
            if not said:
                self.status = self._process.wait()
                for trial in self._trials.values():
                    trial.server_ended(self.status)


class ForkedTrial:
    """A fork that trains: what the launcher needs of `subprocess.Popen`.

    Attributes:
        gone: whether the process that forked it, or was to, has ended and can't say any more how this one does.
    """

    def __init__(self, process: ForkServer, number: int) -> None:
        self.returncode: int | None = None
        self.started = self.gone = False
        self._process, self._number = process, number

    def poll(self) -> int | None:
        """Exit status of the fork; None while it runs."""
        if self.returncode is None:
            self._process.listen(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait until it has ended, or can't be heard of any more.

        Raises:
            subprocess.TimeoutExpired: after ``timeout`` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None and not self.gone:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise subprocess.TimeoutExpired("a trial", timeout or 0.0)
            self._process.listen(left)
        return self.returncode

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.say(self._number, signal=signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self._process.kill(self._number)

    def server_ended(self, status: int) -> None:
        """Note what that makes of this trial: until it is forked, a signal to that process is one to the trial."""
        if self.returncode is None and not self.started and status < 0:
            self.returncode = status
        self.gone = self.returncode is None


def _end(ours: socket.socket, process: "subprocess.Popen[bytes]") -> None:
    ours.close()  # it ends when it reads that
    process.wait()
