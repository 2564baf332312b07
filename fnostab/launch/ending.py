"""How a program's trial ended: its outcome, from what it recorded, what it said and how its process went."""

import re
import signal
from dataclasses import dataclass
from typing import Any

from fnostab.record import names
from fnostab.record.journal import Journal
from fnostab.record.judging import Recorded, judge_recorded, read_recorded
from fnostab.record.outcomes import TRAINING_OUTCOMES, Judgement, Outcome
from fnostab.record.trial import TrialSpec

__all__ = ["ProcessEnd", "announce_files", "conclude"]

LONGEST_REASON = 500  # characters
NOTHING_RECORDED = (
    "it recorded nothing: add `from fnostab.recorder import Recorder` to the script, and in `with Recorder() as rec` "
    "call rec.step(i, loss=...)"
)
MOST_BYTES = 5_000_000  # of all files that are announced
ANNOUNCED_FILES = (".png", ".json", ".csv", ".txt")
_OUT_OF_MEMORY = re.compile(
    r"\bMemoryError\b|OutOfMemoryError|out of memory|ALLOC_FAILED|can't allocate memory|"
    r"Cannot allocate memory|std::bad_alloc|RESOURCE_EXHAUSTED",
    re.IGNORECASE,
)
_ERROR = re.compile(r"(?:[\w.-]+: )?(?:fatal )?(error|[\w.]*(Error|Exception|Interrupt))(: |$)", re.IGNORECASE)


@dataclass(frozen=True)
class ProcessEnd:
    """How a program's process ended.

    Attributes:
        return_code: -N if signal N ended it; None if it is not known, since its supervisor died before it.
        asked: whether it was asked to end.
        tail: the end of what it wrote to stderr.
    """

    return_code: int | None
    asked: bool = False
    tail: str = ""


def conclude(journal: Journal, spec: TrialSpec, end: ProcessEnd) -> Outcome:
    """Judge a trial whose program has ended, and write its summary and, last, its outcome.

    Raises:
        JournalError: the journal is damaged, or can't be written.
    """
    recorded = read_recorded(journal.directory)
    judgement, summary = judge_recorded(recorded, spec)
    outcome, reason = _outcome(recorded, judgement, end)
    payload: dict[str, Any] = {
        "outcome": str(outcome),
        "failure_step": None,
        "known_good_step": None,
        "rules_held": [],
        "not_judged": [],
        "reason": reason,
    }
    if outcome in TRAINING_OUTCOMES and judgement is not None:
        journal.record(recorded.last_step or 0, summary)
        payload |= {
            "failure_step": judgement.failure_step,
            "known_good_step": judgement.known_good_step,
            "rules_held": [str(rule) for rule in judgement.rules_held],
            "not_judged": list(judgement.not_judged),
        }
    elif end.asked:
        payload["requested"] = True
    announce_files(journal)
    journal.event(names.OUTCOME_EVENT, payload)
    return outcome


def announce_files(journal: Journal) -> None:
    """Announce what the program left in the folder that ``{directory}`` names as artifacts, up to 5 MB in all."""
    folder, left = journal.directory / "files", MOST_BYTES
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        if path.suffix not in ANNOUNCED_FILES or path.is_symlink() or not path.is_file():
            continue
        if (size := path.stat().st_size) > left or not path.resolve().is_relative_to(folder.resolve()):
            continue
        left -= size
        relative = path.relative_to(journal.directory)
        journal.event(names.ARTIFACT_EVENT, {"path": relative.as_posix(), "artifact_path": relative.parent.as_posix()})


def _outcome(recorded: Recorded, judgement: Judgement | None, end: ProcessEnd) -> tuple[Outcome, str | None]:
    """The first that applies, with the reason of what is no training outcome."""
    if judgement is not None and (recorded.announced is not None or judgement.outcome is Outcome.NONFINITE):
        return judgement.outcome, None
    code, said = end.return_code, _last_error(end.tail)
    if end.asked and not recorded.reached_the_end:
        return Outcome.KILLED, "asked to end"
    if code == 0 or (code is None and (recorded.complete or recorded.reached_the_end)):
        return (Outcome.INFRA_ERROR, NOTHING_RECORDED) if judgement is None else (judgement.outcome, None)
    if recorded.seen is not None and recorded.seen[0] is Outcome.OOM:
        return Outcome.OOM, recorded.seen[1] or "out of memory"
    if _OUT_OF_MEMORY.search(end.tail):
        return Outcome.OOM, said
    if code is None and not said:
        return Outcome.KILLED, "its process ended, and so did its supervisor before it"
    if code is None:
        return Outcome.INFRA_ERROR, said[:LONGEST_REASON]
    if code < 0:
        hint = " (perhaps by the kernel, for want of memory)" if code == -signal.SIGKILL else ""
        return Outcome.KILLED, f"ended by {_signal_name(-code)}{hint}{': ' if said else ''}{said}"[:LONGEST_REASON]
    return Outcome.INFRA_ERROR, f"exit status {code}: {said or _last_line(end.tail)}"[:LONGEST_REASON]


def _last_error(tail: str) -> str:
    """Last line that reads like an error, as the end of a traceback; empty without one."""
    lines = [line.strip() for line in tail.splitlines()]
    return next((line for line in reversed(lines) if _ERROR.match(line)), "")


def _last_line(tail: str) -> str:
    return next((line.strip() for line in reversed(tail.splitlines()) if line.strip()), "it left no message")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
