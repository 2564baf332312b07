"""The last attempt at a trial, as its journal tells it, and whether anything is still at work on it.

A trial that was killed may be tried again: its journal goes on after the outcome. MLflow has no
heartbeat, so a run whose process died would be RUNNING for ever if nobody looked.
"""

import os
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from fnostab import names
from fnostab.journal import FILE_NAME, Event, Journal, Point, read_journal
from fnostab.outcomes import TRAINING_OUTCOMES, Outcome

__all__ = ["Attempt", "close_if_abandoned", "is_alive", "last_attempt", "starts_attempt", "this_process"]

QUIET_S = 900  # after which a journal that is written on another host counts as abandoned


@dataclass
class Attempt:
    """What a journal says of an attempt.

    Attributes:
        ended: whether an outcome event closed it.
        outcome: of that event, or the one that a tag announced before the process died; None if neither.
        owner: 'pid@host' of the process at work, with the time at which it said so.
        tags: that were set.
    """

    ended: bool = False
    outcome: Outcome | None = None
    owner: str | None = None
    owner_since_ms: int | None = None
    tags: dict[str, Any] = field(default_factory=dict)


def starts_attempt(record: Point | Event) -> bool:
    """Whether a record that follows an outcome shows that the trial is being tried again."""
    return isinstance(record, Point) or (record.name == names.TAGS_EVENT and names.OWNER in record.payload)


def last_attempt(journal: Path) -> Attempt:
    """Read the last attempt from a journal.

    Raises:
        JournalError: it is damaged.
    """
    attempt = Attempt()
    for record, _ in read_journal(journal):
        if attempt.ended and attempt.outcome not in TRAINING_OUTCOMES and starts_attempt(record):
            attempt = Attempt()
        if isinstance(record, Point):
            continue
        if record.name == names.TAGS_EVENT:
            attempt.tags.update(record.payload)
            if names.OWNER in record.payload:
                attempt.owner, attempt.owner_since_ms = record.payload[names.OWNER], record.time_ms
            if names.OUTCOME in record.payload and not attempt.ended:
                attempt.outcome = Outcome(record.payload[names.OUTCOME])
        elif record.name == names.OUTCOME_EVENT:
            outcome = record.payload.get("outcome")
            attempt.ended, attempt.outcome = True, None if outcome is None else Outcome(outcome)
    return attempt


def close_if_abandoned(directory: Path) -> bool:
    """Record an outcome for a trial whose process died without one; answer whether the trial has ended.

    It is ``killed``, unless the process had announced a failure of training before it died: leaving
    that out of the rates would flatter the arm.

    Raises:
        JournalError: the journal is damaged, or can't be written.
    """
    journal = directory / FILE_NAME
    attempt = last_attempt(journal)
    if attempt.ended:
        return True
    if is_alive(attempt.owner, attempt.owner_since_ms, journal.stat().st_mtime):
        return False
    announced = attempt.outcome if attempt.outcome in TRAINING_OUTCOMES else None
    step = attempt.tags.get(names.FAILURE_STEP)
    with Journal(directory) as writer:
        writer.event(
            names.OUTCOME_EVENT,
            {
                "outcome": str(announced or Outcome.KILLED),
                "failure_step": int(step) if announced and step is not None else None,
                "known_good_step": None,
                "rules_held": [str(announced)] if announced else [],
                "not_judged": [],
                "reason": f"its process {attempt.owner or '(unknown)'} ended without recording an outcome",
            },
        )
    return True


def is_alive(owner: str | None, since_ms: int | None = None, last_sign_s: float | None = None) -> bool:
    """Whether the process that calls itself ``owner``, 'pid@host', can still be at work.

    On this host the process is looked up; one that started after ``since_ms`` only has its number.
    On another host it can't be: it counts as alive for 15 minutes after its ``last_sign_s``.
    """
    pid, _, host = (owner or "").partition("@")
    if not pid.isdecimal():
        return False
    if host != socket.gethostname():
        return last_sign_s is not None and time.time() - last_sign_s < QUIET_S
    try:
        process = psutil.Process(int(pid))
        started_ms = process.create_time() * 1000
        return process.status() != psutil.STATUS_ZOMBIE and (since_ms is None or started_ms <= since_ms + 1000)
    except psutil.Error:
        return False


def this_process() -> str:
    """The value of the owner tag for this process."""
    return f"{os.getpid()}@{socket.gethostname()}"
