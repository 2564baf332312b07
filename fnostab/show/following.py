"""Send what trials record for as long as they do: where nobody else does, as on a cluster whose driver has left."""

import time
from collections.abc import Iterator
from pathlib import Path

from fnostab.errors import JournalError, TrackingError
from fnostab.record.folders import folders_with
from fnostab.show.sources import Journals
from fnostab.tracking import Store, SyncReport, sync

__all__ = ["follow"]


def follow(path: Path, store: Store, interval_s: float) -> Iterator[SyncReport | TrackingError]:
    """Send what is new under ``path``, again and again, until every study there has ended.

    A study has ended when no process or job of its trials is left, and all have a result or nothing was written for
    a minute. A store that is away is tried again.

    Args:
        path: a study's folder, or any above it; more studies may be started there meanwhile.
        store: where to.
        interval_s: between two rounds.

    Yields:
        What each round sent, or why it could not.

    Raises:
        FnostabError: there is no study under ``path``, or a record in it is damaged.
    """
    known: dict[Path, Journals] = {}
    while True:
        for folder in folders_with(path, "study.json"):
            if folder not in known:
                known[folder] = Journals(folder)
        if not known:
            raise JournalError(f"there is no study under {path}: name a study's folder, or one above it")
        ended = all(journals.ended() for journals in known.values())  # asked first: what they wrote last is sent below
        try:
            report = sync(path, store)
        except TrackingError as error:
            yield error
        else:
            yield report
            if ended:
                return
        time.sleep(interval_s)
