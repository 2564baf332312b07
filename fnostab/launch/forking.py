"""Fork server: a process that has imported the training libraries and forks on request.

Importing torch and Lightning takes a quarter of a small trial's processor time. Forks skip the imports and share
their memory. The launcher's side and the protocol are in `fnostab.launch.fork_server`. Linux only.

`multiprocessing` has a fork server too. Its children import the launcher's main module again, which may be a user's
script without a guard, and they keep the server's standard streams and session.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fnostab.errors import LaunchError
from fnostab.launch.calls import answer_call

PR_SET_PDEATHSIG = 1  # of prctl(2): the signal that a process gets when its parent ends
LAUNCHER = 0  # stdin is the socket for requests and answers


def become_a_trial() -> list[Path]:
    """Fork for every request; return only in the forks for trials, as if each had been started for its trial.

    The server ends when its launcher is gone. Forks for trials continue: each leads a session; those for calls end.

    Returns:
        The trial.json files to train.

    Raises:
        LaunchError: this process has other threads, whose locks a fork could never release.
    """
    # Signals to all processes of a job, as Slurm sends, are for the trials. A fork blocks them until it handles them.
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
        fork: int = request["fork"]
        if "signal" not in request:
            _insist_on_one_thread()
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            if not (pid := os.fork()):
                signal.set_wakeup_fd(-1)
                os.close(woken)
                os.close(wake)
                return _start_anew(request, handlers, mask)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            pids[fork] = pid
            _answer(fork=fork)
        elif fork in pids:  # otherwise it has ended, and its pid may be reused
            pid, number = pids[fork], request["signal"]
            leads = os.getpgid(pid) == pid  # not in its first moments
            (os.killpg if leads and number == signal.SIGKILL else os.kill)(pid, number)


def _next_request() -> dict[str, Any]:
    line = b""
    with contextlib.suppress(ConnectionResetError):  # the launcher ended without reading the last answer
        while not line.endswith(b"\n") and (part := os.read(LAUNCHER, 1)):
            line += part
    if not line:
        os._exit(0)
    request: dict[str, Any] = json.loads(line)
    return request


def _tell_of_ends(pids: dict[int, int]) -> None:
    for fork, pid in list(pids.items()):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            del pids[fork]
            _answer(fork=fork, status=os.waitstatus_to_exitcode(status))


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
    """Set up a fork like a process that was started for its request; one for a call answers it and ends."""
    os.setsid()
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for fd, stream in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(fd, stream)
    os.close(log)
    os.close(nothing)
    files: list[str] = request.get("files", [])
    sys.argv[1:] = ["train", *(part for file in files for part in ("--trial", file))]
    if numpy := sys.modules.get("numpy"):  # Python reseeds itself; torch starts equal
        numpy.random.seed()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if "call" in request:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # nobody waits for the answer then
        status = 0
        try:
            answer_call(Path(request["call"]))
        except BaseException:  # the command line would hide some
            traceback.print_exc()
            status = 1
        with contextlib.suppress(Exception):  # the function may have closed it
            sys.stdout.flush()
        os._exit(status)
    return [Path(file) for file in files]
