"""Fork server: a process that has made the imports of a training, and forks a trial whenever it is asked to.

Importing torch and Lightning takes a quarter of a small trial's processor time. A fork has it done already, and shares
the memory. The launcher's side, with what is said, is `fnostab.launch.fork_server`. Linux only.

`multiprocessing` has a fork server too. Its children import the launcher's main module again, which may be any script
of a user's, without a guard; and they keep the standard streams and the session of the server.
"""

import contextlib
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fnostab.errors import LaunchError

__all__ = ["become_a_trial"]

LAUNCHER = 0  # stdin is a socket: requests come on it and answers go


def become_a_trial() -> list[Path]:
    """Fork for every requested trial; return only in the forks, each as if it had been started for its trial.

    This process ends when nobody is left to ask it. Its forks go on: each leads a session.

    Returns:
        The trial.json files to train.

    Raises:
        LaunchError: this process has other threads, of whose locks a fork would never be rid.
    """
    # Who signals all processes of a job, as Slurm does, means the trials. Until a fork heeds them signals are blocked.
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
    woken, wake = os.pipe()  # by SIGCHLD
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    ready = select.poll()
    ready.register(woken, select.POLLIN)
    ready.register(LAUNCHER, select.POLLIN)
    pids: dict[int, int] = {}
    while True:
        fds = [fd for fd, _ in ready.poll()]
        if woken in fds:
            os.read(woken, 4096)
            _tell_of_ends(pids)
        if LAUNCHER not in fds:
            continue
        request = _next_request()
        trial: int = request["trial"]
        if "signal" not in request:
            _insist_on_one_thread()
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            if not (pid := os.fork()):
                signal.set_wakeup_fd(-1)
                os.close(woken)
                os.close(wake)
                return _start_anew(request, handlers, mask)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            pids[trial] = pid
            _answer(trial=trial)
        elif trial in pids:  # else it has ended, and its number may be another's
            os.kill(pids[trial], request["signal"])


def _next_request() -> dict[str, Any]:
    line = b""
    with contextlib.suppress(ConnectionResetError):  # of a launcher that ended without reading the last answer
        while not line.endswith(b"\n") and (part := os.read(LAUNCHER, 1)):
            line += part
    if not line:
        os._exit(0)
    request: dict[str, Any] = json.loads(line)
    return request


def _tell_of_ends(pids: dict[int, int]) -> None:
    for trial, pid in list(pids.items()):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            del pids[trial]
            _answer(trial=trial, status=os.waitstatus_to_exitcode(status))


def _answer(**what: int) -> None:
    try:
        os.write(LAUNCHER, json.dumps(what).encode() + b"\n")
    except OSError:  # it is gone
        os._exit(0)


def _insist_on_one_thread() -> None:
    count = max(threading.active_count(), len(os.listdir("/proc/self/task")))
    if count > 1:
        raise LaunchError(f"imported modules run {count} threads, so trials can't be forked: each starts a new process")


def _start_anew(request: Mapping[str, Any], handlers: Mapping[signal.Signals, Any], mask: set[Any]) -> list[Path]:
    """Make a fork what a process is that was started for a trial."""
    os.setsid()
    files: list[str] = request["files"]
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for fd, stream in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(fd, stream)
    os.close(log)
    os.close(nothing)
    sys.argv[1:] = ["train", *(part for file in files for part in ("--trial", file))]
    if numpy := sys.modules.get("numpy"):  # Python's own generator sees to that itself; torch's starts the same always
        numpy.random.seed()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return [Path(file) for file in files]
