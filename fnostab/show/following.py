"""Send records while trials write them, where nobody else does, such as on a cluster whose driver has ended."""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fnostab.errors import FnostabError, LaunchError, TrackingError
from fnostab.record.folders import insist_on_studies
from fnostab.show.sources import QUIET_S, Journals
from fnostab.tracking import Store, SyncReport, sync

__all__ = ["follow"]


def follow(path: Path, store: Store, interval_s: float) -> Iterator[SyncReport | TrackingError]:
    """Send what is new under ``path``, again and again, until every study there has ended.

    A study has ended when no process or job of its trials is left, and all have a result or nothing was written for a
    minute. More may be started there meanwhile. A store that is away is tried again.

    Yields:
        What each round sent, or why it could not.

    Raises:
        JournalError: no study found under ``path``.
    """
    known: dict[Path, Journals] = {}
    while True:
        found = insist_on_studies(path)
        for folder in found:
            with suppress(LaunchError):  # of a damaged record: `sync` names it, and sends the trials
                known[folder] = known[folder] if folder in known else Journals(folder)
        ended = all(map(_has_ended, known.values()))  # asked first: what they wrote last is sent below
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
    """Whether a study has ended; one of which a record can't be read, if nothing was written for a minute."""
    try:
        return journals.ended() is not None
    except FnostabError:
        return journals.quiet_s() > QUIET_S
