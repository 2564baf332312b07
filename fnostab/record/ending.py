"""Judge how a program's trial ended: from its records, its stderr and its exit status."""

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fnostab.record import names
from fnostab.record.ignored_seed import IGNORES_SEED, twin_seed
from fnostab.record.journal import FILE_NAME, Event, Journal, Point, read_journal
from fnostab.record.judging import Recorded, judge_recorded, read_recorded
from fnostab.record.outcomes import TRAINING_OUTCOMES, Judgement, Outcome
from fnostab.record.trial import TrialSpec

__all__ = ["ProcessEnd", "Unwritten", "announce_files", "conclude", "judge_again"]

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
    """End of a program's process.

    Attributes:
        return_code: exit status; -N if signal N ended it; None if unknown, since its supervisor died first.
        asked: whether it was asked to end.
        tail: end of its stderr.
    """

    return_code: int | None
    asked: bool = False
    tail: str = ""


class Unwritten:
    """Takes the records that would end a trial, in place of its journal.

    Attributes:
        records: that were taken, all with the time that was given (Unix milliseconds).
    """

    def __init__(self, directory: Path, time_ms: int) -> None:
        self.directory = directory
        self.records: list[Point | Event] = []
        self._time_ms = time_ms

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Take finite metrics of one step."""
        self.records.append(Point(self._time_ms, step, values))

    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        """Take one event."""
        self.records.append(Event(self._time_ms, name, payload))


def conclude(journal: Journal | Unwritten, spec: TrialSpec, end: ProcessEnd) -> Outcome:
    """Judge a trial whose program has ended, and write its summary and, last, its outcome.

    Raises:
        JournalError: the journal is damaged, or can't be written.
    """
    recorded = read_recorded(journal.directory)
    judgement, summary = judge_recorded(recorded, spec)
    outcome, reason = _outcome(recorded, judgement, end)
    if outcome in TRAINING_OUTCOMES and (twin := twin_seed(journal.directory, spec)) is not None:
        outcome, reason = Outcome.INFRA_ERROR, f"{IGNORES_SEED}: all its values are those of seed {twin}"
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
        payload = {**_payload(judgement), "reason": reason}
    elif end.asked:
        payload["requested"] = True
    announce_files(journal)
    journal.event(names.OUTCOME_EVENT, payload)
    return outcome


def judge_again(directory: Path, spec: TrialSpec) -> None:
    """Judge a training that has ended again, by its trial's present rules; record the outcome if it is another.

    Raises:
        JournalError: another process holds the journal, or it is damaged or can't be written.
    """
    last = [r for r, _ in read_journal(directory / FILE_NAME) if isinstance(r, Event) and r.name == names.OUTCOME_EVENT]
    judgement, _ = judge_recorded(read_recorded(directory), spec)
    if judgement is None or not last:
        return
    payload = _payload(judgement)
    if any(last[-1].payload.get(name) != payload[name] for name in ("outcome", "failure_step")):
        with Journal(directory) as journal:
            journal.event(names.OUTCOME_EVENT, payload)


def _payload(judgement: Judgement) -> dict[str, Any]:
    return {
        "outcome": str(judgement.outcome),
        "failure_step": judgement.failure_step,
        "known_good_step": judgement.known_good_step,
        "rules_held": [str(rule) for rule in judgement.rules_held],
        "not_judged": list(judgement.not_judged),
    }


def announce_files(journal: Journal | Unwritten) -> None:
    """Announce as artifacts the files that the program left in ``{directory}``, up to 5 MB in all."""
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
    """The first outcome that applies, with its reason if it is no training outcome."""
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
