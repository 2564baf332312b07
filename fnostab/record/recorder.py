"""Record a script's training in the journal of the trial for which the script was started.

A script that ``fnostab train`` starts finds its trial through environment variables. Outside a study, in ranks
other than 0 and in a fork nothing is recorded. One process at a time records a trial: it holds
``recorder.lock`` and must belong to the newest attempt.

Uses only the standard library, so that the import is fast.
"""

import math
import os
import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, SupportsFloat, SupportsIndex

from fnostab.errors import JournalError, one_line
from fnostab.record import names
from fnostab.record.numbers import number, whole
from fnostab.record.outcome_tags import outcome_tags
from fnostab.record.program_journal import RECORDED_EVENT, Recording

__all__ = [
    "AFTER_FAILURE_VARIABLE",
    "ANNOUNCED",
    "JOURNAL_VARIABLE",
    "METRIC_NAMES",
    "NAME_CHARACTERS",
    "TOKEN_VARIABLE",
    "Recorder",
    "ended_by",
    "is_metric_name",
    "session_sink",
    "shared",
]

JOURNAL_VARIABLE = "FNOSTAB_JOURNAL"  # folder of the trial
TOKEN_VARIABLE = "FNOSTAB_TOKEN"  # of the attempt
AFTER_FAILURE_VARIABLE = "FNOSTAB_AFTER_FAILURE"
RANK_VARIABLES = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
ALLOCATION_FAILED = ("can't allocate memory", "ALLOC_FAILED")  # torch on a CPU; cuFFT, cuBLAS and the like
ANNOUNCED = ("nonfinite", "collapsed", "exploded", "stagnated")  # FAILURES of fnostab.record.outcomes

_STEP_NAMES = {"loss": names.TRAIN_LOSS, "grad_norm": names.GRAD_NORM, "lr": names.LEARNING_RATE}
METRIC_NAMES = "up to 200 letters, digits, spaces and _ - . /, as in val/top 5"
NAME_CHARACTERS = r"\w\-./ "  # of a metric's name, as a class of a regular expression
_NAME = re.compile(rf"[{NAME_CHARACTERS}]{{1,200}}")
_VAL_PREFIX = re.compile("^val[/_]")


class Recorder:
    """Recorder of one training: ``with Recorder() as rec``.

    Steps are handed to the operating system with each call and survive a crash of the process; events and
    validations are forced to disk. Steps increase within an attempt. A retry may repeat steps of an earlier
    attempt: the first record counts, and the trial is tagged as restarted.

    Raises:
        JournalError: another process records the trial, this process belongs to an earlier attempt, or the journal
            can't be written.
    """

    def __init__(self) -> None:
        self._failed = False
        self._stops = os.environ.get(AFTER_FAILURE_VARIABLE) != "continue"
        self._names = dict(_STEP_NAMES)
        self._val_names = {"loss": f"{names.VAL_PREFIX}loss"}
        self._pid = os.getpid()
        self._closed = False
        self._to: Recording | None = None
        if (sink := session_sink()) is not None:
            self._to = sink
            self._failed = sink.announced
        self._borrows = sink is not None and _sharing is not None and sink is _sharing._to

    @property
    def last_step(self) -> int | None:
        """Last step recorded by this attempt; None before the first, or if nothing is recorded."""
        return None if self._to is None else self._to.last_step

    def scheduled(self, steps: SupportsIndex) -> None:
        """Record the scheduled number of optimiser steps.

        Raises:
            JournalError: it is not an integer from 1, or the journal can't be written.
        """
        if (to := self._recording()) is not None:
            count = whole("scheduled", steps)
            if count < 1:
                raise JournalError(f"scheduled({count}): expected the number of steps, at least 1")
            to.event(names.STARTED_EVENT, {"scheduled_steps": count})

    def step(
        self,
        step: SupportsIndex,
        *,
        loss: SupportsFloat | None = None,
        grad_norm: SupportsFloat | None = None,
        lr: SupportsFloat | None = None,
        **others: SupportsFloat,
    ) -> bool:
        """Record an optimiser step; a loss or gradient norm that is not finite is a failure of the trial.

        Args:
            step: 0-based step, which increases from call to call.
            loss: training loss.
            grad_norm: gradient norm before clipping.
            lr: learning rate.
            others: further metrics, recorded under their own names.

        Returns:
            Whether to continue: False once the trial has failed, unless the study says ``after_failure: continue``.

        Raises:
            JournalError: the step is not an integer from 0 or does not increase, a value is not a number, or the
                journal can't be written.
        """
        values = {}
        if loss is not None:
            values["loss"] = number("loss", loss)
        if grad_norm is not None:
            values["grad_norm"] = number("grad_norm", grad_norm)
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if (to := self._recording()) is not None:
            if lr is not None:
                values["lr"] = number("lr", lr)
            for name, other in others.items():
                values[name] = number(name, other)
            i = whole("step", step)
            to.step(i, {self._name(name): value for name, value in values.items()})
            if bad and not self._failed:
                self._failed = True
                where = ["gradient" if name == "grad_norm" else name for name in bad]
                seen = {"loss": repr(values.get("loss", math.nan)), "norm": repr(values.get("grad_norm", math.nan))}
                to.event(names.NONFINITE_EVENT, {"step": i, "where": where, **seen})
                to.announce("nonfinite", i)
        self._failed |= bool(bad)
        return not (self._failed and self._stops)

    def validation(self, step: SupportsIndex, *, loss: SupportsFloat | None = None, **others: SupportsFloat) -> bool:
        """Record a validation after an optimiser step as ``val/loss`` and ``val/<name>``; return as `step` does.

        A name may have the prefix already, as ``val_loss`` or ``val/loss``. A loss that is not finite is a failure of
        the trial, whichever metric decides. A step may have several validations, for example of several data sets,
        with distinct names.

        Raises:
            JournalError: as for `step`.
        """
        given = {**({} if loss is None else {"loss": loss}), **others}
        values = {_VAL_PREFIX.sub("", name): number(name, value) for name, value in given.items()}
        if len(values) < len(given):
            raise JournalError(f"validation({', '.join(given)}): two of these names are one, as loss and val_loss are")
        bad = not math.isfinite(values.get("loss", 0.0))
        if (to := self._recording()) is not None:
            i = whole("validation", step)
            to.validation(i, {self._val_name(name): value for name, value in values.items()})
            if bad:
                to.announce("nonfinite", i)
        self._failed |= bad
        return not (self._failed and self._stops)

    def failed(self, outcome: Literal["nonfinite", "collapsed", "exploded", "stagnated"], step: SupportsIndex) -> None:
        """Announce a failure at a step, for scripts that detect failures themselves; the first announcement counts.

        Raises:
            JournalError: the outcome is unknown, the step is not an integer from 0, or the journal can't be written.
        """
        if outcome not in ANNOUNCED:
            raise JournalError(f"failed({outcome!r}): expected one of {', '.join(ANNOUNCED)}")
        i = whole("failed", step)
        self._failed = True
        if (to := self._recording()) is not None:
            to.announce(outcome, i)

    def close(self) -> None:
        """Close the journal; recording afterwards is an error."""
        self._end(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        to, self._to = self._to, None
        self._closed = True
        if to is None or self._borrows or os.getpid() != self._pid:
            return
        try:
            if error is None or (isinstance(error, SystemExit) and not error.code):
                to.event(RECORDED_EVENT, {"step": to.last_step})
            elif isinstance(error, Exception | KeyboardInterrupt):
                with suppress(JournalError):  # the script's own error says more
                    to.event(names.TAGS_EVENT, outcome_tags({"outcome": ended_by(error), "reason": one_line(error)}))
        finally:
            to.close()

    def _recording(self) -> Recording | None:
        if os.getpid() != self._pid:
            return None
        if self._closed:
            raise JournalError("the recorder is closed: record within the block of `with Recorder() as rec`")
        return self._to

    def _name(self, name: str) -> str:
        if name not in self._names:
            if name in self._names.values() or name.startswith(names.VAL_PREFIX):
                raise JournalError(f"step(**{{{name!r}: ...}}): give it as loss, grad_norm or lr, or to validation()")
            if name in names.JUDGED:
                raise JournalError(f"step({name}=...): trials are judged by it; give yours another name")
            self._names[name] = _checked(name)
        return self._names[name]

    def _val_name(self, name: str) -> str:
        if name not in self._val_names:
            self._val_names[name] = _checked(names.VAL_PREFIX + name)
        return self._val_names[name]


_sharing: Recorder | None = None


@contextmanager
def shared(recorder: Recorder) -> Iterator[None]:
    """Share a recorder's open journal with monitors and further recorders of this process.

    For a process that trains several trials in turn: whatever a trial's training opens ends with the trial.
    """
    global _sharing
    _sharing = recorder
    try:
        yield
    finally:
        _sharing = None


def session_sink(held: Recording | None = None) -> Recording | None:
    """Open the journal of the trial for which this process was started; None outside a study and in ranks above 0.

    A journal that is ``held`` is returned as it is, unless this process trains several trials in turn.

    Raises:
        JournalError: as for `Recorder`.
    """
    directory, token = os.environ.get(JOURNAL_VARIABLE), os.environ.get(TOKEN_VARIABLE)
    if not (directory and token) or any(os.environ.get(name, "0") != "0" for name in RANK_VARIABLES):
        return None
    if _sharing is not None and _sharing._pid == os.getpid():
        return _sharing._to
    return Recording(Path(directory), token) if held is None else held


def is_metric_name(name: str) -> bool:
    """Whether a metric can have this name; MLflow would rename others, such as ``../x``."""
    return (
        bool(_NAME.fullmatch(name))
        and posixpath.normpath(name) == name
        and not name.startswith(("/", ".."))
        and name != "."
    )


def _checked(name: str) -> str:
    if not is_metric_name(name):
        raise JournalError(f"{name[:300]!r} is not a metric name: expected {METRIC_NAMES}")
    return name


def ended_by(error: BaseException) -> Literal["oom", "killed", "infra_error"]:
    """Outcome of a training that an exception, or its cause, ended."""
    if not isinstance(error, Exception):  # Ctrl-C, or a request to exit
        return "killed"
    return "oom" if is_out_of_memory(error) else "infra_error"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, or a cause of it, says that memory ran out."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, MemoryError) or type(link).__name__ == "OutOfMemoryError":
            return True
        if isinstance(link, RuntimeError) and any(text in str(link) for text in ALLOCATION_FAILED):
            return True
        link = link.__cause__
    return False
