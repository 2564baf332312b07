"""Find journals on disk with records that a store lacks."""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fnostab.errors import FnostabError
from fnostab.record import names
from fnostab.record.archive import opened
from fnostab.record.folders import OF_TRIALS, folders_with
from fnostab.record.journal import read_journal
from fnostab.record.lines import FILE_NAME, journal_file
from fnostab.tracking.read.summaries import read_summaries
from fnostab.tracking.store.paging import every, of_kind
from fnostab.tracking.store.store import Store, reported
from fnostab.tracking.upload.identity import RunIdentity, run_identity
from fnostab.tracking.upload.mark import Mark, place_of

QUIET_S = 60.0  # a journal that changed within this time may still be written
LONGEST_LAST_LINE = 65_536  # bytes; for a longer one, all records are read
TAGS = (names.TRIAL_ID, names.SENT, names.THINNED)


@dataclass(frozen=True)
class JournalsBehind:
    """Result of `journals_behind`.

    Attributes:
        trials: number of trials whose journal has not changed for a minute.
        behind: directories of those trials whose records the store lacks in part.
        unreadable: one message for each trial whose records can't be read.
        recent: number of further trials, whose journal changed within the last minute.
    """

    trials: int
    behind: tuple[Path, ...]
    unreadable: tuple[str, ...]
    recent: int = 0


def journals_behind(store: Store, output: str | Path) -> JournalsBehind:
    """Compare the journals under ``output`` with what the runs in a store have of them.

    Raises:
        TrackingError: the store does not answer.
    """
    quiet: dict[Path, RunIdentity] = {}
    unreadable, recent = [], 0
    for directory in folders_with(output, *OF_TRIALS):
        path = journal_file(directory)
        if not path.exists():
            continue
        if abs(time.time() - path.stat().st_mtime) < QUIET_S:  # a time in the future is from another clock
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
    """Yield the tags of a study's runs, by experiment and trial; without a hash, of the runs outside any study."""
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
    """Whether a run lacks a record of a journal. ``tags`` are the run's; None if there is no run."""
    tags = tags or {}
    if names.THINNED in tags:
        return False
    mark, journal = Mark.read(tags.get(names.SENT)), directory / FILE_NAME
    if mark.offset and _ends_at(directory, mark):
        return False
    place = place_of(mark, journal, lambda record: None, lambda line: None)  # `fnostab sync` reports damage
    if place is None:  # a copy of a journal that continued elsewhere
        return False
    return next(read_journal(journal, place.offset, leave_out=lambda line: None), None) is not None


def _ends_at(directory: Path, mark: Mark) -> bool:
    """Whether a journal, or its archive, ends at a mark, by its size and last line."""
    with opened(directory) as file:
        if file.seek(0, os.SEEK_END) != mark.offset:
            return False
        file.seek(max(mark.offset - LONGEST_LAST_LINE, 0))
        last_line = file.read(LONGEST_LAST_LINE).rstrip(b"\n").rpartition(b"\n")[2]
    return last_line.startswith(b"%08x " % mark.checksum)
