"""Find the journals on disk that a store does not wholly hold."""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fnostab.errors import FnostabError
from fnostab.record import names
from fnostab.record.archive import opened
from fnostab.record.folders import OF_TRIALS, folders_with
from fnostab.record.journal import FILE_NAME, journal_file, read_journal
from fnostab.tracking.read.summaries import read_summaries
from fnostab.tracking.store.paging import every, of_kind
from fnostab.tracking.store.store import Store, reported
from fnostab.tracking.upload.identity import RunIdentity, run_identity
from fnostab.tracking.upload.mark import Mark, place_of

__all__ = ["JournalsBehind", "journals_behind"]

QUIET_S = 60.0  # journals that changed since may be under way
LONGEST_LAST_LINE = 65_536  # bytes; a longer one is found by reading all records
TAGS = (names.TRIAL_ID, names.SENT, names.THINNED)


@dataclass(frozen=True)
class JournalsBehind:
    """Result of `journals_behind`.

    Attributes:
        trials: that have a journal which nobody has written for a minute.
        behind: directories of those of which the store lacks records.
        unreadable: a line on each trial whose record can't be read.
        recent: how many more trials have a journal that was written within the last minute.
    """

    trials: int
    behind: tuple[Path, ...]
    unreadable: tuple[str, ...]
    recent: int = 0


def journals_behind(store: Store, output: str | Path) -> JournalsBehind:
    """Compare the journals under ``output`` with how much of them the runs in a store have.

    Raises:
        TrackingError: the store does not answer.
    """
    quiet: dict[Path, RunIdentity] = {}
    unreadable, recent = [], 0
    for directory in folders_with(output, *OF_TRIALS):
        path = journal_file(directory)
        if not path.exists():
            continue
        if abs(time.time() - path.stat().st_mtime) < QUIET_S:  # a time to come is of another clock
            recent += 1
            continue
        try:
            quiet[directory] = run_identity(directory, None)
        except FnostabError as error:
            unreadable.append(str(error))
    with reported(store):
        studies = {(each.experiment, each.tags.get(names.STUDY_HASH)) for each in quiet.values()}
        known = {key: tags for study in studies for key, tags in _tags_of(store, *study)}
    behind = []
    for directory, identity in quiet.items():
        try:
            if _is_behind(directory, known.get((identity.experiment, identity.trial_id))):
                behind.append(directory)
        except FnostabError as error:
            unreadable.append(str(error))
    return JournalsBehind(len(quiet), tuple(behind), tuple(unreadable), recent)


def _tags_of(
    store: Store, experiment: str, study_hash: str | None
) -> Iterator[tuple[tuple[str, str | None], Mapping[str, str]]]:
    """Tags of the runs of a study, or without a hash of those that are part of none, by experiment and trial."""
    found = store.client.get_experiment_by_name(experiment)
    if found is None:
        return
    if study_hash is not None:
        for run in read_summaries(store, found.experiment_id, study_hash, tags=TAGS, metrics=()):
            yield (experiment, run.tags.get(names.TRIAL_ID)), run.tags
        return
    for run in every(store.client.search_runs, [found.experiment_id], of_kind(names.KIND_LIVE)):
        yield (experiment, run.data.tags.get(names.TRIAL_ID)), run.data.tags


def _is_behind(directory: Path, tags: Mapping[str, str] | None) -> bool:
    """Whether a run, given by its tags, lacks a record of a journal; None: there is no run."""
    tags = tags or {}
    if names.THINNED in tags:
        return False
    mark, journal = Mark.read(tags.get(names.SENT)), directory / FILE_NAME
    if mark.offset and _ends_at(directory, mark):
        return False
    place = place_of(mark, journal, lambda record: None, lambda line: None)  # `fnostab sync` says what is damaged
    if place is None:  # a copy of a journal that went on elsewhere
        return False
    return next(read_journal(journal, place.offset, leave_out=lambda line: None), None) is not None


def _ends_at(directory: Path, mark: Mark) -> bool:
    """Whether a journal, or its archive, ends at a mark: told by its size and last line."""
    with opened(directory) as file:
        if file.seek(0, os.SEEK_END) != mark.offset:
            return False
        file.seek(max(mark.offset - LONGEST_LAST_LINE, 0))
        last_line = file.read(LONGEST_LAST_LINE).rstrip(b"\n").rpartition(b"\n")[2]
    return last_line.startswith(b"%08x " % mark.checksum)
