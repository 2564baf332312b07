"""Find and end the processes of a trial's program: its process group, and processes that carry its token."""

import os
import signal
import time
from contextlib import suppress

import psutil

from fnostab.record.recorder import TOKEN_VARIABLE

POLL_S = 0.02


def members(group: int | None, token: str) -> list[psutil.Process]:
    """List the processes of a group (None: of none) or with an attempt's token, without this one and zombies."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            same_group = group is not None and os.getpgid(process.pid) == group
            if same_group or process.environ().get(TOKEN_VARIABLE) == token:
                found.append(process)
    return found


def ask_to_end(group: int) -> None:
    """Send SIGTERM to a process group; a caller that belongs to it must ignore the signal."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGTERM)


def end_all(group: int | None, token: str, grace_s: float) -> None:
    """End all processes of a program: SIGTERM, and SIGKILL after ``grace_s`` seconds; return when none is left."""
    left = members(group, token)
    for process in left:
        with suppress(psutil.Error):
            process.terminate()
    deadline = time.monotonic() + grace_s
    while left:
        time.sleep(POLL_S)
        left = members(group, token)
        if time.monotonic() > deadline:
            for process in left:
                with suppress(psutil.Error):
                    process.kill()
        if time.monotonic() > deadline + grace_s:  # stuck in a system call, for example on a dead disk
            return
