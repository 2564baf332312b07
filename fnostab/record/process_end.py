"""Infer how a training ended from an exception, or from its process's exit status and stderr.

Only this module interprets stderr.
"""

import re
import signal
from dataclasses import dataclass

from fnostab.record.outcomes import Outcome
from fnostab.record.recorder import ended_by

NO_MESSAGE = "it left no message"
_OUT_OF_MEMORY = re.compile(
    r"\bMemoryError\b|OutOfMemoryError|out of memory|ALLOC_FAILED|can't allocate memory|"
    r"Cannot allocate memory|std::bad_alloc|RESOURCE_EXHAUSTED",
    re.IGNORECASE,
)
HINTS = (  # hints on errors that involve fnostab itself
    (
        re.compile(r"\b(nan|inf|infinity|infinite|non-?finite|not finite|OverflowError|diverged)\b", re.IGNORECASE),
        "if the training failed so, record the value before raising: rec.step(step, loss=loss), or without one "
        "rec.failed('nonfinite', step)",
    ),
    (
        re.compile(r"No module named 'fnostab'"),
        "install fnostab for the Python that the command starts, or name the one that has it",
    ),
    (
        re.compile(r"invalid device ordinal|Duplicate GPU|requested gpu|\b(two|[2-9]) GPUs\b", re.IGNORECASE),
        "each trial sees one GPU; for one with more: `command: env CUDA_VISIBLE_DEVICES=0,1 python ...` and `--jobs 1`",
    ),
)
_ERROR = re.compile(r"(?:[\w.-]+: )?(?:fatal )?(error|[\w.]*(Error|Exception|Exit|Interrupt))(: |$)", re.IGNORECASE)


@dataclass(frozen=True)
class ProcessEnd:
    """End of a process that trained a trial.

    Attributes:
        return_code: exit status; -N if signal N ended it; None if its parent died first.
        tail: end of its stderr.
        owner: the process, as 'pid@host'; None if unknown.
        goes_on: whether the process itself continues, as a notebook does after an exception.
    """

    return_code: int | None
    asked: bool = False
    tail: str = ""
    owner: str | None = None
    goes_on: bool = False


@dataclass(frozen=True)
class Ending:
    """Outcome of an attempt and its reason.

    Attributes:
        requested: whether the process was asked to end, so that the trial is not to blame.
    """

    outcome: Outcome
    reason: str | None
    requested: bool = False


def outcome_of(error: BaseException) -> Outcome:
    """Outcome of a training that an exception (or its cause) ended: ``oom``, ``killed`` or ``infra_error``."""
    return Outcome(ended_by(error))


def how_it_ended(end: ProcessEnd) -> Ending:
    """Infer how a process ended from its exit status and stderr.

    The first that applies: ``killed`` if it was asked to end, ``oom`` after a memory error, ``killed`` by a signal,
    else ``infra_error``. If the exit status is unknown, only the last line of stderr counts, since earlier lines may
    belong to a previous attempt.
    """
    code = end.return_code
    tail = end.tail if code is not None else _last_line(end.tail)
    said = _last_error(tail)
    if end.asked:
        did_not = ", and ended by SIGKILL" if code == -signal.SIGKILL else ""
        return Ending(Outcome.KILLED, f"asked to end{did_not}{_after_colon(said)}", requested=True)
    if _OUT_OF_MEMORY.search(tail):
        return Ending(Outcome.OOM, last_words(tail))
    if code is None:
        reason = f"its process {end.owner or '(unknown)'} ended without recording an outcome{_after_colon(said)}"
        return Ending(Outcome.INFRA_ERROR if said else Outcome.KILLED, reason)
    if code < 0:
        hint = " (perhaps by the kernel, out of memory)" if code == -signal.SIGKILL else ""
        return Ending(Outcome.KILLED, f"ended by {_signal_name(-code)}{hint}{_after_colon(said)}")
    said, status = last_words(tail), "" if end.goes_on else f"exit status {code}: "
    return Ending(Outcome.INFRA_ERROR, f"{status}{said}{hint_on(said)}")


def hint_on(error: str) -> str:
    """Hint for an error that involves fnostab itself, after a semicolon; empty without one."""
    return next((f"; {hint}" for pattern, hint in HINTS if pattern.search(error)), "")


def last_words(tail: str) -> str:
    """Last line of stderr that looks like an error, such as the end of a traceback; else the last line."""
    return _last_error(tail) or _last_line(tail) or NO_MESSAGE


def _last_error(tail: str) -> str:
    lines = [line.strip() for line in tail.splitlines()]
    return next((line for line in reversed(lines) if _ERROR.match(line)), "")


def _last_line(tail: str) -> str:
    return next((line.strip() for line in reversed(tail.splitlines()) if line.strip()), "")


def _after_colon(text: str) -> str:
    return f": {text}" if text else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
