"""A journal with an uploader behind it, for a training script of the user's own.

with live_sink("my_experiment") as sink:
    trainer = lightning.Trainer(callbacks=[StabilityMonitor(sink)])
    trainer.fit(model)
"""

import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fnostab.errors import TrackingError
from fnostab.record import names
from fnostab.record.attempt import this_process
from fnostab.record.journal import Journal
from fnostab.record.outcomes import Outcome
from fnostab.tracking.store.store import open_store
from fnostab.tracking.upload.identity import LIVE_FILE, LiveRun
from fnostab.tracking.upload.uploader import Uploader

__all__ = ["LiveSink", "live_sink"]

FOLDER = "fnostab_runs"
DRAIN_TIMEOUT_S = 30


class LiveSink:
    """What `live_sink` gives: a `Sink` that also remembers the outcome that was announced."""

    def __init__(self, journal: Journal) -> None:
        self.directory = journal.directory
        self.outcome: str | None = None
        self.ended = False
        self._journal = journal

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Keep ``values`` of one step."""
        self._journal.record(step, values)

    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        """Keep one thing that happened: ``params``, ``tags``, ``artifact``, ``dataset``, ``outcome``."""
        self._journal.event(name, payload)
        if name == names.TAGS_EVENT:
            self.outcome = payload.get(names.OUTCOME, self.outcome)
        self.ended |= name == names.OUTCOME_EVENT


@contextmanager
def live_sink(
    experiment: str = "fnostab",
    run_name: str | None = None,
    uri: str | None = None,
    directory: str | Path | None = None,
) -> Iterator[LiveSink]:
    """Record a training in MLflow without ever waiting for MLflow.

    Points are on disk first and are sent in the background. If the store is away when the script
    ends, a warning says how to send the rest later.

    Args:
        experiment: name in MLflow; made if it does not exist.
        run_name: name of the run; None takes that of the directory.
        uri: tracking store, as in `open_store`.
        directory: of the journal; None makes a new one under ``fnostab_runs``. One that exists
            continues its run.

    Raises:
        TrackingError: the store can't be opened.
        JournalError: the directory can't be written, or another process writes there.
    """
    store = open_store(uri)
    unique = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    path = Path(FOLDER) / experiment / unique if directory is None else Path(directory)
    uploader = Uploader(store)
    with Journal(path) as journal:
        if not (path / LIVE_FILE).exists():
            LiveRun(experiment, run_name or path.name, uuid.uuid4().hex).write(path)
        sink = LiveSink(journal)
        sink.event(names.TAGS_EVENT, {names.OWNER: this_process()})
        uploader.follow(path)
        uploader.start()
        try:
            yield sink
        except BaseException as error:
            _end(sink, Outcome.INFRA_ERROR if isinstance(error, Exception) else Outcome.KILLED, error)
            raise
        else:
            _end(sink, None, None)
        finally:
            uploader.stop()
            try:
                uploader.drain(DRAIN_TIMEOUT_S)
            except TrackingError as error:
                warnings.warn(str(error), stacklevel=3)


def _end(sink: LiveSink, otherwise: Outcome | None, error: BaseException | None) -> None:
    """Close the run with the outcome that was announced, or else with ``otherwise``."""
    if sink.ended:
        return
    outcome = otherwise if sink.outcome in (None, Outcome.RUNNING) else sink.outcome
    reason = f"{type(error).__name__}: {error}".splitlines()[0] if error else None
    sink.event(names.OUTCOME_EVENT, {"outcome": outcome, "reason": reason})
