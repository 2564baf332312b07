"""Launcher's side of the fork server: run trials and calls as forks of a process with the imports done.

The process itself is in `fnostab.launch.forking`. Both sides send lines of JSON over a socket. The launcher sends
``{"fork": 3, "files": [...], "log": "..."}`` for trials, ``{"fork": 3, "call": "...", "log": "..."}`` for a call, and
``{"fork": 3, "signal": 15}``. The process sends ``{"fork": 3}`` when a fork has started and
``{"fork": 3, "status": 0}`` when it has ended, with a `subprocess.Popen.returncode`.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile

MOST_OUTPUT_BYTES = 100_000


class ForkServer:
    """Process that forks as long as this object exists.

    Args:
        environment: environment of all forks.
        preloads: modules to import first.

    Attributes:
        status: exit status, set once `listen` has seen the process end.

    Raises:
        OSError: it can't be started.
    """

    def __init__(self, environment: Mapping[str, str], preloads: Sequence[str]) -> None:
        self._output = TemporaryFile()  # noqa: SIM115  until this object is gone
        self._socket, its_end = socket.socketpair()
        with its_end:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fnostab", "train", "--fork-server", ",".join(preloads)],
                env=environment,
                stdin=its_end.fileno(),
                stdout=self._output,
                stderr=self._output,
                start_new_session=True,
            )
        self.status: int | None = None
        self._asked = 0  # number of requests, used to number the forks
        self._forked: weakref.WeakValueDictionary[int, Forked] = weakref.WeakValueDictionary()  # they know this
        self._unread = b""
        self._imports = True
        weakref.finalize(self, _end, self._socket, self._process)

    def output(self) -> bytes:
        """Output of the process itself, not of its forks."""
        return os.pread(self._output.fileno(), MOST_OUTPUT_BYTES, 0)  # seeking would move the process's position too

    def train(self, files: Sequence[Path], log: Path) -> "Forked":
        """Request a fork that trains the trials in ``files`` once the imports are done."""
        return self._fork(files=[str(file) for file in files], log=str(log))

    def call(self, folder: Path, log: Path) -> "Forked":
        """Request a fork that answers the call in ``folder`` once the imports are done."""
        return self._fork(call=str(folder), log=str(log))

    def _fork(self, **what: object) -> "Forked":
        fork = self._forked[self._asked] = Forked(self, self._asked)
        self.say(self._asked, **what)
        self._asked += 1
        return fork

    def say(self, fork: int, **what: object) -> None:
        """Send a request. `listen` reports a process that is gone."""
        self._socket.settimeout(None)
        with contextlib.suppress(OSError):
            self._socket.sendall(json.dumps({"fork": fork, **what}).encode() + b"\n")

    def kill(self, fork: int) -> None:
        """Kill a fork; during the imports, when no request is read, kill the server and so all forks."""
        if self._imports:
            self._process.kill()
        self.say(fork, signal=signal.SIGKILL)

    def listen(self, timeout_s: float | None) -> None:
        """Read the messages of the process; if there are none, wait up to ``timeout_s`` (None: forever)."""
        while self.status is None:
            self._socket.settimeout(timeout_s)
            timeout_s = 0.0  # read further messages without waiting
            try:
                said = self._socket.recv(65536)
            except (BlockingIOError, TimeoutError):
                return
            except ConnectionResetError:  # the process ended with unread requests
                said = b""
            *lines, self._unread = (self._unread + said).split(b"\n")
            self._imports = self._imports and not lines
            for answer in map(json.loads, lines):
                if fork := self._forked.get(answer["fork"]):
                    fork.started, fork.returncode = True, answer.get("status")
            if not said:
                self.status = self._process.wait()
                for fork in self._forked.values():
                    fork.server_ended(self.status)


class Forked:
    """Fork, with the part of the `subprocess.Popen` interface that the launcher needs.

    Attributes:
        gone: whether the fork server has ended and can no longer report on this fork.
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
        """Wait until the fork has ended or can no longer be observed.

        Raises:
            subprocess.TimeoutExpired: after ``timeout`` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None and not self.gone:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise subprocess.TimeoutExpired("a fork", timeout or 0.0)
            self._process.listen(left)
        return self.returncode

    def terminate(self) -> None:
        """Send SIGTERM to the fork."""
        self._process.say(self._number, signal=signal.SIGTERM)

    def kill(self) -> None:
        """Kill the fork with its child processes."""
        self._process.kill(self._number)

    def server_ended(self, status: int) -> None:
        """Note that the server ended: a signal that killed it counts for a fork not yet made."""
        if self.returncode is None and not self.started and status < 0:
            self.returncode = status
        self.gone = self.returncode is None

    @property
    def was_refused(self) -> bool:
        """Whether the server ended without forking; its log says why."""
        return self.gone and not self.started


def _end(ours: socket.socket, process: "subprocess.Popen[bytes]") -> None:
    ours.close()  # the process ends when it reads the end of file
    process.terminate()  # or at once, if it still imports
    process.wait()
