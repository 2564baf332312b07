"""Send a study's records to MLflow while it runs: immediately, or as soon as a slow server answers."""

import shlex
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from fnostab.errors import SlowStoreError, TrackingError
from fnostab.record.progress import TrialProgress
from fnostab.record.trial import StudySpec
from fnostab.show.console import say
from fnostab.tracking import Store, Uploader, end_unwritten, ensure_study, finish_study, link_project_run, open_store
from fnostab.tracking.environment import settled

SLOW_S = 4.0  # trials start without waiting for a store that takes longer to open
RETRY_S = 5.0
DRAIN_S = 60.0


class Recording:
    """Upload of one study's records to one store.

    A server that exists but does not answer in time does not keep trials from starting: a background thread tries
    again, and then sends the records that trials have written to their journals meanwhile.

    Attributes:
        store: the store; None until it has answered.
        run_id: id of the study's run; None until the run is created.

    Raises:
        TrackingError: the store can't be opened, for another reason than being slow.
    """

    def __init__(self, tracking_uri: str | None, console: Console) -> None:
        self._uri = tracking_uri
        self._console = console
        self.store: Store | None = None
        self.run_id: str | None = None
        self._uploader: Uploader | None = None
        self._trouble: str | None = None
        self._stopping = threading.Event()
        self._connecting: threading.Thread | None = None
        started = time.monotonic()
        try:
            self.store = open_store(tracking_uri)
        except SlowStoreError as error:
            self._say_slow(error)
        self._is_slow = time.monotonic() - started > SLOW_S

    @property
    def trouble(self) -> str | None:
        """Reason why records wait on disk; None if they are being sent."""
        return self._uploader.trouble if self._uploader is not None else self._trouble

    def ask(self, question: Callable[[Store], object]) -> None:
        """Put an optional question to the store; if it does not answer in time, the study goes on without."""
        if self.store is None:
            return
        try:
            question(self.store)
        except SlowStoreError as error:
            self.store = None
            self._say_slow(error)

    def start(self, record: StudySpec, trials: Sequence[TrialProgress], folder: Path) -> None:
        """Create the study's run and begin to send what trials write; to a slow store from a background thread.

        Raises:
            TrackingError: the run can't be created, for another reason than a slow store.
        """
        self._record, self._trials, self._folder = record, trials, folder
        self._trouble = "the store is being opened"
        if self.store is not None and not self._is_slow:
            self.ask(self._connect)
        if self._uploader is None:
            self._connecting = threading.Thread(target=self._connect_later, name="fnostab-connecting", daemon=True)
            self._connecting.start()

    def finish(self, status: str) -> str | None:
        """Send the remaining records and end the study's run; return the reason if that fails, else None."""
        unsent = None
        if self._connecting is not None:
            self._stopping.set()
            self._connecting.join(DRAIN_S)
        if self._uploader is None:
            unsent = (
                f"nothing was sent ({self.trouble}): `fnostab sync {shlex.quote(str(self._folder))}` sends it later"
            )
        else:
            self._uploader.stop()
            try:
                self._uploader.drain(DRAIN_S)
            except TrackingError as error:
                unsent = str(error)
        if self.store is None or self.run_id is None:
            return unsent
        try:
            for trial in self._trials:
                if trial.unwritten and trial.outcome is not None:
                    end_unwritten(self.store, trial.spec, trial.outcome, trial.reason or "")
            finish_study(self.store, self.run_id, status)
        except TrackingError as error:
            unsent = unsent or str(error)
        return unsent

    def _say_slow(self, error: SlowStoreError) -> None:
        say(self._console, f"{error}; trials start anyway, and their records are sent later")

    def _connect(self, store: Store) -> None:
        self.run_id = ensure_study(store, self._record)
        link_project_run(store, self.run_id)
        uploader = Uploader(store, self.run_id)
        for trial in self._trials:
            if trial.run_id is None:
                uploader.follow(trial.directory)
        uploader.start()
        self.store, self._uploader = store, uploader

    def _connect_later(self) -> None:
        while self._uploader is None:
            try:
                with settled():
                    self._connect(self.store or open_store(self._uri))
            except TrackingError as error:
                self._trouble = str(error)
                if self._stopping.wait(RETRY_S):
                    return
