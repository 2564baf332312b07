"""Send records to MLflow while trials write them, if `fnostab run` no longer does, as for jobs on a cluster."""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fnostab.errors import FnostabError, LaunchError, TrackingError
from fnostab.record.folders import insist_on_studies
from fnostab.show.sources import QUIET_S, Journals
from fnostab.tracking import Store, SyncReport, sync


def follow(path: Path, store: Store, interval_s: float) -> Iterator[SyncReport | TrackingError]:
    """Send new records under ``path`` in rounds, ``interval_s`` seconds apart, until every study there has ended.

    A study has ended when no process or job of its trials is left, and all have a result or nothing was written for a
    minute. Studies that are started there meanwhile are sent too. A store that does not answer is tried again.

    Yields:
        The report of each round, or the error for which it sent nothing.

    Raises:
        JournalError: no study found under ``path``.
    """
    known: dict[Path, Journals] = {}
    while True:
        found = insist_on_studies(path)
        for folder in found:
            with suppress(LaunchError):  # a damaged study.json: `sync` reports it, and sends the trials
                known[folder] = known[folder] if folder in known else Journals(folder)
        ended = all(map(_has_ended, known.values()))  # before `sync`, which then sends their last records
        try:
            report = sync(path, store)
        except TrackingError as error:
            yield error
        else:
            yield report
            if ended:
                return
        time.sleep(interval_s)


def _has_ended(journals: Journals) -> bool:
    """Whether a study has ended; if a record of it can't be read, whether nothing was written for a minute."""
    try:
        return journals.ended() is not None
    except FnostabError:
        return journals.quiet_s() > QUIET_S
