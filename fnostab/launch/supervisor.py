"""The process beside a program that is a trial: it owns the journal before and after, and says how the trial ended.

It takes ``journal.lock``, writes params, owner and a token of this attempt, closes the file, and lets the program
inherit the lock. While the program runs only its `fnostab.recorder.Recorder` writes. Afterwards the supervisor ends
what is left of its process group, waits for ``recorder.lock``, judges, and writes the outcome last.
"""

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
from filelock import FileLock, Timeout

import fnostab
from fnostab.errors import JournalError, LaunchError
from fnostab.record import names
from fnostab.record.attempt import last_lines, this_process
from fnostab.record.journal import Journal
from fnostab.record.judging import IGNORES_SEED, Observed, observe, twin_seed, write_end
from fnostab.record.outcomes import Outcome
from fnostab.record.recorder import AFTER_FAILURE, JOURNAL, LOCK_FILE, TOKEN, TOKEN_FILE
from fnostab.record.trial import TrialSpec

__all__ = ["supervise"]

GRACE_S = 15.0  # between asking the program to end and ending it
POLL_S = 0.05
TAIL_LINES = 40
LONGEST_REASON = 400  # characters
FILES = "files"
LARGEST_FILES = 5_000_000  # bytes of pictures that are sent with the records
DROPPED = ("MLFLOW_RUN_ID", "RANK", "WORLD_SIZE", "LOCAL_RANK")  # and SLURM_*, MASTER_*: of whatever started this
_MEMORY = re.compile(r"\b(MemoryError|OutOfMemoryError|out of memory|Cannot allocate memory|std::bad_alloc)\b", re.I)
_ERROR = re.compile(r"^[\w.]*(Error|Exception|error)\b.*")


def supervise(spec: TrialSpec, directory: Path) -> Outcome:
    """Start a trial's program, wait for its end, and write its outcome.

    Args:
        spec: with ``argv``.
        directory: of the trial.

    Raises:
        JournalError: another process owns the journal, or it can't be written.
        LaunchError: the program can't be started.
    """
    assert spec.argv is not None
    (directory / FILES).mkdir(parents=True, exist_ok=True)
    with Journal(directory) as journal:
        token = secrets.token_hex(8)
        journal.event(names.PARAMS_EVENT, {**spec.settings, "seed": spec.seed, "arm": spec.arm})
        tags = {names.OWNER: this_process(), names.VERSION: fnostab.__version__, "fnostab.attempt": token}
        journal.event(names.TAGS_EVENT, tags)
        (directory / TOKEN_FILE).write_text(token)
        lock = journal.hand_over()
        log_start = _log_end()
        try:
            with _Requests() as requests:
                process = _start(spec, directory, token, lock)
                status = _wait(process, requests)
        finally:
            _end_group()
            _wait_for_recorder(directory)
            journal.take_back()
        seen = observe(directory, spec)
        _announce_files(journal, directory)
        return _conclude(journal, seen, spec, status, requests.asked, _stderr(log_start))


def _conclude(
    journal: Journal, seen: Observed, spec: TrialSpec, status: int, asked: str | None, stderr: list[str]
) -> Outcome:
    """How the trial ended, the first that applies: see docs/outcomes.md."""
    last = next(
        (line for line in reversed(stderr) if _ERROR.match(line)), stderr[-1] if stderr else "it left no message"
    )
    memory = seen.memory_error or next((line for line in reversed(stderr) if _MEMORY.search(line)), None)
    outcome: Outcome | None = None
    more: dict[str, Any] = {}
    if seen.announced:
        pass
    elif asked is not None and not seen.complete:
        outcome, more = Outcome.KILLED, {"reason": f"ended by {asked}", "requested": True}
    elif status == 0 and (twin := twin_seed(journal.directory, spec, seen)) is not None:
        outcome, more = Outcome.INFRA_ERROR, {"reason": f"{IGNORES_SEED}: all its values are those of seed {twin}"}
    elif status == 0 and seen.anything:
        pass
    elif status == 0:
        outcome = Outcome.INFRA_ERROR
        more = {"reason": "it recorded nothing: see `from fnostab.recorder import Recorder` in docs/own.md"}
    elif memory is not None:
        outcome, more = Outcome.OOM, {"reason": memory[:LONGEST_REASON]}
    elif status < 0:
        name = signal.Signals(-status).name
        hint = " (perhaps by the kernel, for want of memory)" if name == "SIGKILL" else ""
        outcome, more = Outcome.KILLED, {"reason": f"ended by {name}{hint}: {last}"[:LONGEST_REASON]}
    else:
        outcome, more = Outcome.INFRA_ERROR, {"reason": f"exit status {status}: {last}"[:LONGEST_REASON]}
    return write_end(journal, seen, spec, outcome, **more)


class _Requests:
    """SIGTERM and SIGINT to this process, handed on to the program instead of ending this one.

    Attributes:
        asked: name of the first signal; None if there was none.
        since_s: when it came, on the monotonic clock.
    """

    def __init__(self) -> None:
        self.asked: str | None = None
        self.since_s = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "_Requests":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked is None:
            self.asked, self.since_s = signal.Signals(number).name, time.monotonic()


def _start(spec: TrialSpec, directory: Path, token: str, lock: int) -> subprocess.Popen[bytes]:
    dropped = ("SLURM_", "MASTER_")
    environment = {n: v for n, v in os.environ.items() if n not in DROPPED and not n.startswith(dropped)}
    environment |= {JOURNAL: str(directory.absolute()), TOKEN: token, AFTER_FAILURE: spec.after_failure}
    try:
        return subprocess.Popen(
            list(spec.argv or ()),
            cwd=spec.working_directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            pass_fds=(lock,),
            restore_signals=True,
        )
    except (OSError, ValueError) as error:
        where = f" in {spec.working_directory}" if spec.working_directory else ""
        what = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        raise LaunchError(f"can't start {(spec.argv or ('?',))[0]!r}{where}: {what}") from error


def _wait(process: subprocess.Popen[bytes], requests: _Requests) -> int:
    """Exit status of the program; asked to end, it and its group get SIGTERM, and SIGKILL later."""
    told = False
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(POLL_S)
        if requests.asked is None:
            continue
        if not told:
            told = True
            for each in _group():
                with suppress(psutil.Error):
                    each.terminate()
        elif time.monotonic() - requests.since_s > GRACE_S:
            process.kill()


def _end_group() -> None:
    """End what is left of this process's group: children that the program did not wait for."""
    for each in _group():
        with suppress(psutil.Error):
            each.terminate()
    _, alive = psutil.wait_procs(_group(), timeout=2)
    for each in alive:
        with suppress(psutil.Error):
            each.kill()


def _group() -> list[psutil.Process]:
    """The other processes of this one's group, if it leads it: of a shell's it would end too much."""
    me = os.getpid()
    if os.getpgrp() != me:
        return psutil.Process().children(recursive=True)
    return list(_members(me))


def _members(group: int) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, PermissionError):
            if process.pid != group and os.getpgid(process.pid) == group:
                yield process


def _wait_for_recorder(directory: Path) -> None:
    """Wait until nobody records any more.

    Raises:
        JournalError: a process that left the group goes on recording.
    """
    try:
        with FileLock(directory / LOCK_FILE, timeout=GRACE_S):
            pass
    except Timeout:
        raise JournalError(f"{directory} is still recorded by a process that its program left behind: end it") from None


def _announce_files(journal: Journal, directory: Path) -> None:
    size = 0
    for path in sorted((directory / FILES).rglob("*.png")):
        size += path.stat().st_size
        if path.is_file() and not path.is_symlink() and size <= LARGEST_FILES:
            place = path.relative_to(directory)
            journal.event(names.ARTIFACT_EVENT, {"path": str(place), "artifact_path": str(place.parent)})


def _log_end() -> tuple[Path, int] | None:
    """The file that stderr goes to, and where it ends now; None if it is a terminal or a pipe."""
    with suppress(OSError):
        path = Path(os.readlink("/proc/self/fd/2"))
        if path.is_file():
            return path, path.stat().st_size
    return None


def _stderr(start: tuple[Path, int] | None) -> list[str]:
    """The last lines that this attempt left on stderr."""
    sys.stderr.flush()
    if start is None or start[0].stat().st_size <= start[1]:
        return []
    return last_lines(start[0], TAIL_LINES, since=start[1])
