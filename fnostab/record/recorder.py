"""How a program records its training: the standard library alone, and nothing outside a study.

with Recorder() as rec:
    rec.scheduled(steps)
    for i in range(steps):
        rec.step(i, loss=loss, grad_norm=norm)
    rec.validation(i, loss=val_loss)

The supervisor of the trial (`fnostab.launch.supervisor`) names the journal and this attempt in the environment. While
the program runs only its recorder writes: the first process of it that makes one, of rank 0, until it ends. It holds
``recorder.lock``, so that the supervisor knows when it may write again.
"""

import fcntl
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, SupportsFloat

from fnostab.errors import JournalError
from fnostab.record.lines import append, event_line, parse_line, point_line

__all__ = ["AFTER_FAILURE", "JOURNAL", "LOCK_FILE", "MEMORY_ERROR", "TOKEN", "TOKEN_FILE", "Recorder", "session_sink"]

JOURNAL = "FNOSTAB_JOURNAL"  # environment: directory of the trial
TOKEN = "FNOSTAB_TOKEN"  # environment: names the attempt
AFTER_FAILURE = "FNOSTAB_AFTER_FAILURE"  # environment: stop or continue
JOURNAL_FILE = "journal.jsonl"
LOCK_FILE = "recorder.lock"
TOKEN_FILE = "attempt"  # holds the token of the newest attempt
RANKS = ("RANK", "SLURM_PROCID", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "LOCAL_RANK")
STEP_NAMES = {"loss": "train/loss", "grad_norm": "grad_norm/total", "lr": "lr"}
GUARDED = ("loss", "grad_norm")  # values of a step that must be finite
OUTCOME, FAILURE_STEP, RESTARTED = "fnostab.outcome", "fnostab.failure_step", "fnostab.restarted"
MEMORY_ERROR = "fnostab.memory_error"  # tag: what ran out, in the program's words
FAILURES = ("nonfinite", "collapsed", "exploded", "stagnated")
MEMORY_ERRORS = ("MemoryError", "OutOfMemoryError")


class Recorder:
    """Records one training of a study; outside a study, in other ranks and in forks it does nothing.

    Steps go to the operating system with each call, and survive the death of the process; events and validations are
    forced to the disk, and survive that of the machine.

    Raises:
        JournalError: another process records this trial, or a newer attempt at it has begun.
    """

    def __init__(self) -> None:
        self.failed_at: int | None = None
        self._file: int | None = None
        self._lock: int | None = None
        self._pid = os.getpid()
        self._closed = False
        self._last_step: dict[str, int] = {}  # "step" and "validation", of this attempt
        self._recorded: dict[str, int] = {}  # metric -> last step that the journal holds
        self._restarted = False
        self._time_ms = 0
        self._goes_on = os.environ.get(AFTER_FAILURE) == "continue"
        directory = os.environ.get(JOURNAL)
        if directory and all(os.environ.get(name, "0") in ("", "0") for name in RANKS):
            self._open(Path(directory), os.environ.get(TOKEN, ""))

    def scheduled(self, steps: int) -> None:
        """Say how many optimiser steps the whole training has."""
        self._event("started", {"scheduled_steps": int(steps)})

    def step(self, step: int, **values: SupportsFloat) -> bool:
        """Record an optimiser step, counted from 0.

        Args:
            step: above that of the call before.
            values: ``loss``, ``grad_norm``, ``lr``, and others under their own names.

        Returns:
            False once the trial has failed and is to end, else True.

        Raises:
            JournalError: the step does not rise, a value is no number, or the journal can't be written.
        """
        numbers = _numbers(values)
        self._rise("step", step)
        self._point(step, {STEP_NAMES.get(name, name): value for name, value in numbers.items()})
        bad = {name: numbers[name] for name in GUARDED if name in numbers and not math.isfinite(numbers[name])}
        if bad and self.failed_at is None:
            self._event("nonfinite", {"step": step, "where": list(bad)} | {n: repr(v) for n, v in bad.items()})
            self.failed("nonfinite", step)
        return self.failed_at is None or self._goes_on

    def validation(self, step: int, **values: SupportsFloat) -> bool:
        """Record a validation after ``step``: ``loss`` and others, each under ``val/``; see `step`."""
        self._rise("validation", step)
        self._point(step, {f"val/{name}": value for name, value in _numbers(values).items()}, sync=True)
        return self.failed_at is None or self._goes_on

    def failed(self, outcome: str, step: int) -> None:
        """Say that the training has failed, where the program sees it by itself; the first failure counts.

        Args:
            outcome: nonfinite, collapsed, exploded or stagnated.
            step: at which it failed.

        Raises:
            JournalError: there is no such failure.
        """
        if outcome not in FAILURES:
            raise JournalError(f"failed({outcome!r}) is not known; accepted: {', '.join(FAILURES)}")
        if self.failed_at is None:
            self.failed_at = int(step)
            self._event("tags", {OUTCOME: outcome, FAILURE_STEP: str(int(step))})

    def record(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Record metrics under their own names: what a `fnostab.monitor.StabilityMonitor` calls."""
        self._point(step, _numbers(values))

    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        """Record an event, as a `fnostab.monitor.StabilityMonitor` does."""
        self._event(name, dict(payload))

    def close(self) -> None:
        """Let go of the journal; nothing can be recorded afterwards."""
        self._closed = True
        for descriptor in (self._file, self._lock):
            if descriptor is not None and os.getpid() == self._pid:
                os.close(descriptor)
        self._file = self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if kind is not None and kind.__name__ in MEMORY_ERRORS and not self._closed:
                self._event("tags", {MEMORY_ERROR: " ".join(str(error).split())[:400] or kind.__name__})
        finally:
            self.close()

    def _open(self, directory: Path, token: str) -> None:
        lock = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise JournalError(f"{directory} is recorded already: one process of a trial makes one Recorder") from None
        newest = (directory / TOKEN_FILE).read_text() if (directory / TOKEN_FILE).exists() else ""
        if newest != token:
            os.close(lock)
            raise JournalError(f"{directory}: a newer attempt at this trial has begun, so this one records no more")
        self._read(directory / JOURNAL_FILE)
        self._lock = lock
        self._file = os.open(directory / JOURNAL_FILE, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def _read(self, journal: Path) -> None:
        """What earlier attempts recorded: the first record of a step counts."""
        for line in journal.read_bytes().split(b"\n")[:-1]:
            fields = parse_line(line) or {}
            self._time_ms = max(self._time_ms, fields.get("t", 0))
            if "s" in fields:
                for name in (*fields.get("v", {}), *fields.get("x", {})):
                    self._recorded[name] = max(self._recorded.get(name, -1), fields["s"])

    def _rise(self, what: str, step: int) -> None:
        if not isinstance(step, int) or step < 0:
            raise JournalError(f"{what}({step!r}): expected a whole number from 0")
        if step <= self._last_step.get(what, -1):
            raise JournalError(
                f"{what}({step}) after {what}({self._last_step[what]}): steps must rise within a training"
            )
        self._last_step[what] = step

    def _point(self, step: int, values: dict[str, float], *, sync: bool = False) -> None:
        fresh = {name: value for name, value in values.items() if self._recorded.get(name, -1) < step}
        if len(fresh) < len(values) and not self._restarted:
            self._restarted = True
            self._event("tags", {RESTARTED: "true"})
        if fresh:
            self._write(point_line(self._now_ms(), step, fresh), sync)
            self._recorded.update(dict.fromkeys(fresh, step))

    def _event(self, name: str, payload: dict[str, Any]) -> None:
        self._write(event_line(self._now_ms(), name, payload), sync=True)

    def _write(self, line: bytes, sync: bool) -> None:
        if self._closed:
            raise JournalError("this Recorder is closed: record within its `with` block")
        if self._file is None or os.getpid() != self._pid:
            return
        try:
            append(self._file, line)
            if sync:
                os.fsync(self._file)
        except OSError as error:
            raise JournalError(f"can't write the journal: {error.strerror or error}; free some space") from error

    def _now_ms(self) -> int:
        """Unix time, which never decreases within a journal."""
        self._time_ms = max(self._time_ms, time.time_ns() // 1_000_000)
        return self._time_ms


def session_sink() -> Recorder | None:
    """A recorder of the trial that this process was started for; None outside a study."""
    return Recorder() if os.environ.get(JOURNAL) else None


def _numbers(values: Mapping[str, SupportsFloat]) -> dict[str, float]:
    """Values as floats; tensors of one element have one too."""
    try:
        return {name: _float(value) for name, value in values.items()}
    except (TypeError, ValueError) as error:
        bad = next(name for name, value in values.items() if not _is_number(value))
        raise JournalError(f"{bad}={json.dumps(str(values[bad])[:80])} is no number: {error}") from None


def _float(value: SupportsFloat) -> float:
    detach = getattr(value, "detach", None)  # of a tensor that is part of a graph
    return float(detach() if detach is not None else value)


def _is_number(value: SupportsFloat) -> bool:
    try:
        _float(value)
    except (TypeError, ValueError):
        return False
    return True
