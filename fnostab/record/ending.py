"""Outcomes of trials that died without writing one, from their records and from how their process ended.

A program's records are judged here as well, since a program does not judge itself. An observed failure takes
precedence over whatever ended the process later.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fnostab.errors import FnostabError
from fnostab.record import names
from fnostab.record import slurm_jobs as slurm
from fnostab.record.attempt import Attempt, is_alive, is_being_written, last_attempt
from fnostab.record.folders import TRIAL_FILE
from fnostab.record.ignored_seed import IGNORES_SEED, twin_seed
from fnostab.record.journal import Journal
from fnostab.record.journal_outcomes import (
    Recorded,
    judge_recorded,
    observed_failure,
    read_recorded,
    unrecorded_of_rules,
)
from fnostab.record.lines import FILE_NAME, Event, Point, journal_file
from fnostab.record.missing_metric import metric_not_recorded
from fnostab.record.outcomes import FAILURES, TRAINING_OUTCOMES, Judgement, Outcome, outcome_payload, stopped_short
from fnostab.record.process_end import Ending, ProcessEnd, hint_on, how_it_ended
from fnostab.record.stderr_tail import STDERR_FILE, tail_since
from fnostab.record.trial import TrialSpec

NOTHING_RECORDED = (
    "it recorded nothing: the script must call rec.step(i, loss=...) at each step, in `with Recorder() as rec` of "
    "`from fnostab.recorder import Recorder`"
)
NO_LOSS_RECORDED = (
    "it recorded nothing that can be judged, only {}: the script must call rec.step(i, loss=...) at each step, or "
    "record the study's metric"
)
CANT_BE_JUDGED = "its outcome can't be judged: it did not record"
ENDS_EARLY = "its records end after"
MOST_BYTES = 5_000_000  # total size of announced files
ANNOUNCED_FILES = (".png", ".json", ".csv", ".txt")
_NAN = re.compile(r"(?<![\w.-])nan(?![\w-])", re.IGNORECASE)  # NaN as a value, but not nan_to_num or All-NaN


def end_of_abandoned(tags: Mapping[str, str], owner: str | None, tail: str = "") -> dict[str, Any]:
    """Outcome payload for an attempt whose process died unobserved, without writing an outcome.

    The outcome is ``killed``, ``infra_error`` if the process left an error, or how its Slurm job ended. An outcome
    that the training announced takes precedence: leaving a failure out of the rates would flatter the arm.
    """
    ending = how_it_ended(ProcessEnd(None, tail=tail, owner=owner))
    if (job := slurm.job_of_owner(owner)) and (end := slurm.end_of(*job)) and end.outcome is not Outcome.INFRA_ERROR:
        ending = Ending(end.outcome, f"Slurm job {job[0]}: {end.state}", end.was_asked_to_end)
    judgement = Judgement(ending.outcome)
    if tags.get(names.OUTCOME) in TRAINING_OUTCOMES:
        outcome, step = Outcome(tags[names.OUTCOME]), tags.get(names.FAILURE_STEP)
        held = (outcome,) if outcome in FAILURES else ()
        judgement = Judgement(outcome, None if step is None else int(step), rules_held=held)
    return outcome_payload(judgement, ending.reason, requested=ending.requested)


class Unwritten:
    """Stand-in for a journal that collects the records that would end a trial, without writing them.

    Attributes:
        records: collected records, all with the given time (Unix milliseconds).
    """

    def __init__(self, directory: Path, time_ms: int) -> None:
        self.directory = directory
        self.records: list[Point | Event] = []
        self._time_ms = time_ms

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Collect finite metrics of one step."""
        self.records.append(Point(self._time_ms, step, values))

    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        """Collect one event."""
        self.records.append(Event(self._time_ms, name, payload))


def records_of_end(
    directory: Path, last_sign_s: float = 0.0, leave_out: Callable[[str], None] | None = None
) -> list[Point | Event] | None:
    """Build the records that end a trial whose process died without an outcome; nothing is written.

    The outcome comes last. All carry the time of the last record, so that every store and every call gives the trial
    the same end. ``last_sign_s`` is the Unix time of its last sign of life elsewhere; ``leave_out`` is as in
    `last_attempt`.

    Returns:
        None while the process may be at work; an empty list if the trial has an outcome.

    Raises:
        JournalError: the journal can't be read.
    """
    attempt = last_attempt(directory / FILE_NAME, leave_out)
    if attempt.end is not None:
        return []
    last_sign_s = max(last_sign_s, journal_file(directory).stat().st_mtime)
    if is_alive(attempt.owner, attempt.owner_since_ms, last_sign_s) or is_being_written(directory):
        return None
    tail = tail_since(directory / STDERR_FILE, attempt.owner_since_ms)
    unwritten = Unwritten(directory, attempt.last_ms)
    try:
        _close(unwritten, attempt, end_of_abandoned(attempt.tags, attempt.owner, tail))
    except FnostabError as damage:  # its records or another seed's are damaged: it can't be judged
        end = end_of_abandoned(attempt.tags, attempt.owner, f"error: {damage}")
        return [Event(attempt.last_ms, names.OUTCOME_EVENT, end)]
    return unwritten.records


def close_if_abandoned(directory: Path) -> bool:
    """Record an outcome for a trial whose process died without one; return whether the trial has ended.

    For a caller that continues the trial. A reader, whose journal may be a copy, uses `records_of_end` instead.

    Raises:
        JournalError: the journal is damaged, or can't be written.
    """
    records = records_of_end(directory)
    if records:
        with Journal(directory) as writer:
            for record in records:
                writer.add(record)
    return records is not None


def close_attempt(journal: Journal, ending: Ending) -> None:
    """Write the outcome of a trial whose process is gone, for a launcher that may retry it.

    A training failure that the journal shows stands; the records of a program are judged.

    Raises:
        JournalError: the journal is damaged, or can't be written.
    """
    end = outcome_payload(Judgement(ending.outcome), ending.reason, requested=ending.requested)
    _close(journal, last_attempt(journal.path), end, asked=ending.requested)


def close_program_trial(journal: Journal | Unwritten, spec: TrialSpec, end: ProcessEnd) -> Outcome:
    """Judge a trial whose program has ended; write its summary, then its outcome.

    Raises:
        JournalError: the journal is damaged, or can't be written.
    """
    recorded = read_recorded(journal.directory)
    judgement, summary = judge_recorded(recorded, spec)
    ending = _end_of_program(recorded, judgement, spec, end)
    if ending.outcome in TRAINING_OUTCOMES and (twin := twin_seed(journal.directory, spec)) is not None:
        ending = Ending(Outcome.INFRA_ERROR, f"{IGNORES_SEED}: all its values are those of seed {twin}")
    if ending.outcome not in TRAINING_OUTCOMES or judgement is None:
        judgement = Judgement(ending.outcome)
    else:
        journal.record(recorded.last_step or 0, summary)
    _announce_files(journal)
    requested = end.asked and ending.outcome not in TRAINING_OUTCOMES
    journal.event(names.OUTCOME_EVENT, outcome_payload(judgement, ending.reason, requested=requested))
    return ending.outcome


def judge_again(directory: Path, spec: TrialSpec) -> None:
    """Judge a finished training again by its trial's present rules; record the outcome if it changed.

    Missing summary values are written before the outcome: a program's trial that could not be judged has no summary,
    and one judged by another metric lacks this metric's.

    Raises:
        JournalError: another process holds the journal, or it is damaged or can't be written.
    """
    end = last_attempt(directory / FILE_NAME).end
    recorded = read_recorded(directory)
    if recorded.by_rules:
        recorded.announced = None
    judgement, summary = judge_recorded(recorded, spec)
    if judgement is None or end is None:
        return
    unjudged = _cant_be_judged(recorded, judgement, spec)
    payload = outcome_payload(judgement if unjudged is None else Judgement(Outcome.INFRA_ERROR), unjudged)
    is_summarised = spec.argv is None or unjudged is not None
    lacking = {} if is_summarised else {name: x for name, x in summary.items() if name not in recorded.curves}
    if lacking or any(end.payload.get(name) != payload[name] for name in ("outcome", "failure_step")):
        with Journal(directory) as journal:
            if lacking:
                journal.record(recorded.last_step or 0, lacking)
            journal.event(names.OUTCOME_EVENT, payload)


def _close(journal: Journal | Unwritten, attempt: Attempt, end: Mapping[str, Any], *, asked: bool = False) -> None:
    """Write the end of a dead trial: a program's by its records, else ``end`` unless the journal shows a failure."""
    path = journal.directory / TRIAL_FILE
    spec = TrialSpec.read(path) if path.exists() else None
    if spec is not None and spec.argv is not None:
        tail = tail_since(journal.directory / STDERR_FILE, attempt.owner_since_ms)
        close_program_trial(journal, spec, ProcessEnd(None, asked, tail, attempt.owner))
        return
    if spec is not None:
        recorded = read_recorded(journal.directory)
        if (failure := observed_failure(recorded, judge_recorded(recorded, spec)[0])) is not None:
            end = outcome_payload(failure, end["reason"])
    journal.event(names.OUTCOME_EVENT, end)


def _cant_be_judged(recorded: Recorded, judgement: Judgement, spec: TrialSpec) -> str | None:
    """Name the metrics that the rules need and a trial that looks converged did not record; None if it has all.

    A built-in task sets its own rules, and knows which need not be judged, for example without ground truth.
    """
    if spec.argv is None or judgement.outcome is not Outcome.CONVERGED:
        return None
    missing = unrecorded_of_rules(recorded, spec)
    if spec.judged in missing:
        return metric_not_recorded(spec.judged, recorded.curves, CANT_BE_JUDGED)
    return f"{CANT_BE_JUDGED} {' and '.join(missing)}" if missing else None


def _end_of_program(recorded: Recorded, judgement: Judgement | None, spec: TrialSpec, end: ProcessEnd) -> Ending:
    """Ending by the first that applies: observed failure, request to end, normal end, memory error, cause of death.

    An exception that ended the training before its last scheduled step is no normal end, even if the script caught it.
    """
    code = end.return_code
    if (failure := observed_failure(recorded, judgement)) is not None:
        return Ending(failure.outcome, None)
    if end.asked and not recorded.reached_the_end:
        return how_it_ended(end)
    if code == 0 or (code is None and (recorded.complete or recorded.reached_the_end)):
        if recorded.seen is not None and not recorded.reached_the_end:
            outcome, error = recorded.seen
            return Ending(outcome, f"its training ended with {error}, which the script caught{hint_on(error)}")
        if judgement is None:
            others = ", ".join(sorted(recorded.curves))
            return Ending(Outcome.INFRA_ERROR, NO_LOSS_RECORDED.format(others) if others else NOTHING_RECORDED)
        if unjudged := _cant_be_judged(recorded, judgement, spec):
            return Ending(Outcome.INFRA_ERROR, unjudged)
        doubt = _unrecorded_nan(recorded, end.tail) or _counts_validations(recorded, spec) or _ended_early(recorded)
        return Ending(judgement.outcome, doubt)
    if recorded.seen is not None and recorded.seen[0] is Outcome.OOM:
        return Ending(Outcome.OOM, recorded.seen[1] or "out of memory")
    return how_it_ended(replace(end, asked=False))


def _unrecorded_nan(recorded: Recorded, tail: str) -> str | None:
    """Describe a NaN that stderr shows but the training did not record; None if there is none."""
    line = next((line.strip() for line in tail.splitlines() if _NAN.search(line)), None)
    if line is None or any(math.isnan(value) for curve in recorded.curves.values() for value in curve.values()):
        return None
    return f"its log shows NaN, its records none: {line[:100]!r}; record what it prints"


def _counts_validations(recorded: Recorded, spec: TrialSpec) -> str | None:
    """Describe validations that have the numbers of epochs instead of steps; None if they have not."""
    steps, last = sorted(recorded.curves.get(spec.judged, {})), recorded.last_step or 0
    if len(steps) < 2 or steps[0] > 1 or steps[-1] - steps[0] != len(steps) - 1 or last < 2 * len(steps):
        return None
    return (
        f"its validations are numbered {steps[0]} to {steps[-1]}, its steps to {last}, so what happened when is not "
        "known: give the last step, as in rec.validation(rec.last_step, ...)"
    )


def _ended_early(recorded: Recorded) -> str | None:
    """Describe a program that exited normally long before its last scheduled step; None otherwise."""
    if not stopped_short(recorded.last_step, recorded.scheduled_steps):
        return None
    return f"{ENDS_EARLY} {(recorded.last_step or 0) + 1} of {recorded.scheduled_steps} scheduled steps"


def _announce_files(journal: Journal | Unwritten) -> None:
    """Announce the files that the program left in ``{directory}`` as artifacts, up to 5 MB in total."""
    folder, left = journal.directory / "files", MOST_BYTES
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        if path.suffix not in ANNOUNCED_FILES or path.is_symlink() or not path.is_file():
            continue
        if (size := path.stat().st_size) > left or not path.resolve().is_relative_to(folder.resolve()):
            continue
        left -= size
        relative = path.relative_to(journal.directory)
        journal.event(names.ARTIFACT_EVENT, {"path": relative.as_posix(), "artifact_path": relative.parent.as_posix()})
