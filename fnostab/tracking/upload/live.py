"""Journal with a background uploader, for the user's own training script.

with live_sink("my_experiment") as sink:
    trainer = lightning.Trainer(callbacks=[StabilityMonitor(sink)])
    trainer.fit(model)

With a logger that has a run already, everything goes into that run:

logger = MLFlowLogger("my_experiment", tracking_uri="sqlite:///mlflow.db")
with live_sink(run_id=logger.run_id, uri="sqlite:///mlflow.db") as sink:
    lightning.Trainer(logger=logger, callbacks=[StabilityMonitor(sink)]).fit(model)
"""

import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from fnostab import __version__
from fnostab.errors import TrackingError, one_line
from fnostab.record import names
from fnostab.record.attempt import last_attempt, this_process
from fnostab.record.folders import LIVE_FILE
from fnostab.record.journal import Journal, read_journal
from fnostab.record.lines import FILE_NAME as JOURNAL_FILE
from fnostab.record.lines import Event, Point, encode
from fnostab.record.outcomes import Judgement, Outcome, outcome_payload
from fnostab.record.process_end import outcome_of
from fnostab.tracking.store.store import Store, open_store
from fnostab.tracking.upload.identity import LiveRun
from fnostab.tracking.upload.uploader import Uploader

FOLDER = "fnostab_runs"
DEFAULT_EXPERIMENT = "fnostab"
DRAIN_TIMEOUT_S = 30
STEP_METRICS = {names.TRAIN_LOSS, names.GRAD_NORM}  # either shows an optimiser step


class LiveSink:
    """Sink of `live_sink`, which also keeps the outcome that the training announced.

    Attributes:
        held_step: last training step that the journal held when it was opened; -1 if none.
    """

    def __init__(self, journal: Journal) -> None:
        self.directory = journal.directory
        points = (record for record, _ in read_journal(journal.path) if isinstance(record, Point))
        self.held_step = max((p.step for p in points if {*p.values, *p.nonfinite} & STEP_METRICS), default=-1)
        self.outcome: str | None = None
        self.ended = False
        self._journal = journal

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Record ``values`` of one step."""
        self._journal.record(step, values)

    def event(self, name: str, payload: Mapping[str, Any]) -> None:
        """Record an event: ``params``, ``tags``, ``artifact``, ``dataset`` or ``outcome``."""
        self._journal.event(name, payload)
        if name == names.TAGS_EVENT:
            self.outcome = payload.get(names.OUTCOME, self.outcome)
        self.ended |= name == names.OUTCOME_EVENT


@contextmanager
def live_sink(
    experiment: str | None = None,
    run_name: str | None = None,
    uri: str | None = None,
    directory: str | Path | None = None,
    *,
    run_id: str | None = None,
) -> Iterator[LiveSink]:
    """Record a training in MLflow without ever waiting for MLflow.

    Points are written to disk first and sent in the background. If the store is unavailable when the script ends, a
    warning says how to send the rest later.

    Args:
        experiment: name in MLflow, created if it does not exist. None is that of the joined run, or ``fnostab``.
        run_name: name of the run; None takes that of the directory.
        uri: tracking store, as in `open_store`.
        directory: directory of the journal; None creates a new one under ``fnostab_runs``. An existing one continues
            its run: a monitored fit must then continue from a checkpoint, not start again.
        run_id: ID of an existing run to join, such as that of a Trainer's ``MLFlowLogger``. None joins the active run
            of `mlflow.start_run` if it is in the same store and no directory, run name or other experiment is given;
            otherwise a run is created.

    Raises:
        TrackingError: the store can't be opened, or there is no such run.
        JournalError: the directory can't be written, or another process writes there.
    """
    store = open_store(uri)
    run = _run_to_join(store, run_id, experiment, run_name) if directory is None or run_id is not None else None
    unique = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    home = experiment or (DEFAULT_EXPERIMENT if run is None else run.experiment)
    path = Path(FOLDER) / home / unique if directory is None else Path(directory)
    if not (path / LIVE_FILE).exists():
        path.mkdir(parents=True, exist_ok=True)
        live = LiveRun(home, run_name or path.name, uuid.uuid4().hex)
        if run is not None:
            live = LiveRun(run.experiment, run.name, live.trial_id)
            _join(store, run, live.trial_id, path)
        live.write(path)
    uploader = Uploader(store)
    with Journal(path) as journal:
        sink = LiveSink(journal)
        sink.event(names.TAGS_EVENT, {names.OWNER: this_process()})
        uploader.follow(path)
        uploader.start()
        try:
            yield sink
        except BaseException as error:
            _end(sink, error)
            raise
        else:
            _end(sink)
        finally:
            uploader.stop()
            try:
                uploader.drain(DRAIN_TIMEOUT_S)
                if run is not None:
                    store.client.update_run(run.id, name=run.name)  # restore the name that its owner gave it
            except (TrackingError, MlflowException) as error:
                warnings.warn(str(error), stacklevel=3)


@dataclass(frozen=True)
class _JoinedRun:
    """Existing run that the journal is sent into."""

    id: str
    experiment: str
    name: str
    start_ms: int


def _run_to_join(store: Store, run_id: str | None, experiment: str | None, run_name: str | None) -> _JoinedRun | None:
    """Find the existing run to join; None if there is none.

    Raises:
        TrackingError: the store has no run ``run_id``.
    """
    asked = run_id is not None
    active = mlflow.active_run()
    if run_id is None:
        if active is None or run_name is not None:
            return None
        run_id = active.info.run_id
    try:
        run = store.client.get_run(run_id)
        home = store.client.get_experiment(run.info.experiment_id).name
    except MlflowException as error:
        if asked:
            raise TrackingError(f"{store.address} has no run {run_id}: give the id of one, or none") from error
        return None  # the active run is in another store
    if not asked and experiment not in (None, home):
        return None
    return _JoinedRun(run_id, home, run.info.run_name, run.info.start_time)


def _join(store: Store, run: _JoinedRun, trial_id: str, path: Path) -> None:
    """Tag a run as that of the journal in ``path``, and begin the journal at the run's start time."""
    tags = {names.KIND: names.KIND_LIVE, names.TRIAL_ID: trial_id, names.SCHEMA_TAG: names.SCHEMA}
    for name, value in tags.items():
        store.client.set_tag(run.id, name, value)
    (path / JOURNAL_FILE).write_bytes(encode(Event(run.start_ms, names.TAGS_EVENT, {names.VERSION: __version__})))


def _end(sink: LiveSink, error: BaseException | None = None) -> None:
    """Record the announced outcome, or else that of an error, unless the run has an outcome already."""
    if sink.ended:
        return
    if isinstance(error, SystemExit) and not error.code:  # sys.exit() is no error
        error = None
    if sink.outcome is None:  # perhaps announced by a process that was forked for the training
        sink.outcome = last_attempt(sink.directory / JOURNAL_FILE).tags.get(names.OUTCOME)
    outcome = None if error is None else outcome_of(error)
    if sink.outcome not in (None, Outcome.RUNNING):
        outcome = Outcome(sink.outcome)
    judgement = None if outcome is None else Judgement(outcome)
    reason = None if error is None else one_line(error)
    sink.event(names.OUTCOME_EVENT, outcome_payload(judgement, reason))
