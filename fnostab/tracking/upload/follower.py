"""Carry one journal into one run: every record once, whatever dies in between.

How far a store has a journal is kept beside the journal, and moves only after the store has taken a
batch. A crash in between sends that batch again, which changes nothing: MLflow keeps one point for
the same metric, step, time and value, and the time is the one in the journal. A run whose points were
thinned by `fnostab prune` takes no more of them.
"""

import errno
import json
import zlib
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fnostab.errors import JournalError
from fnostab.record import names
from fnostab.record.archive import journal_bytes
from fnostab.record.files import write_whole
from fnostab.record.journal import FILE_NAME, Event, Point, journal_file, read_journal
from fnostab.tracking.store.store import Store
from fnostab.tracking.upload.batch import Batch
from fnostab.tracking.upload.identity import run_identity
from fnostab.tracking.upload.trial_run import TrialRun

__all__ = ["Follower"]

PROGRESS_FILE = "upload.json"
LOCK_FILE = "upload.lock"
SENT_ALONE = (names.ARTIFACT_EVENT, names.DATASET_EVENT, names.OUTCOME_EVENT)


class Follower:
    """Sends what is new in one trial's journal; only one process at a time does so.

    Args:
        store: where to.
        directory: of the trial.
        study_run_id: the parent run, None if it has none.
        lock_timeout_s: how long to wait for another process that sends the same journal.
    """

    def __init__(
        self, store: Store, directory: Path, study_run_id: str | None = None, *, lock_timeout_s: float = 0
    ) -> None:
        self.directory = directory
        self._store = store
        self._study_run_id = study_run_id
        self._lock_timeout_s = lock_timeout_s
        self._journal = directory / FILE_NAME
        self._progress = directory / PROGRESS_FILE
        self._sent_at: tuple[int, int] | None = None
        self._run: TrialRun | None = None
        self._unsaved: tuple[str, int] | None = None

    @property
    def is_behind(self) -> bool:
        """Whether the journal changed since it was last sent."""
        return self._state() != self._sent_at

    def send(self) -> int:
        """Send everything that is new; return how many points that was.

        Raises:
            JournalError: the journal is damaged, or another process is sending it.
            Exception: what MLflow raises if the store does not take it. What it took is kept in
                mind, and the next call goes on from there.
        """
        state = self._state()
        if state == self._sent_at:
            return 0
        try:
            with FileLock(self.directory / LOCK_FILE, timeout=self._lock_timeout_s):
                points = self._send_new()
        except Timeout:
            raise JournalError(f"{self.directory} is being sent by another process: wait for it to end") from None
        except Exception:
            self._run = None  # it may be gone: look it up again
            raise
        self._sent_at = state
        return points

    def _state(self) -> tuple[int, int] | None:
        """Size and time of change of the journal; the size alone may be the same after a torn line was cut off."""
        try:
            stat = journal_file(self.directory).stat()
        except FileNotFoundError:
            return None
        return stat.st_size, stat.st_mtime_ns

    def _send_new(self) -> int:
        if self._run is None:
            first = next(read_journal(self._journal), None)
            if first is None:
                return 0
            identity = run_identity(self.directory, self._study_run_id)
            self._run = TrialRun.find_or_make(self._store, identity, start_ms=first[0].time_ms)
        if self._run.is_thinned:  # to send them again would bring back what was taken away on purpose
            self._keep_offset(self._run, journal_bytes(self.directory))
            return 0
        run, offset = self._run, self._offset(self._run)
        points, batch = 0, Batch()
        for record, end in read_journal(self._journal, offset):
            if run.goes_on_with(record):
                run.reopen()
            alone = isinstance(record, Event) and record.name in SENT_ALONE
            if alone or not batch.has_room_for(record):
                run.send(batch)
                self._keep_offset(run, offset)
                batch = Batch()
            if isinstance(record, Event) and alone:
                self._send_alone(run, record)
            else:
                batch.add(record)
            points += isinstance(record, Point) and bool(record.values)
            offset = end
        run.send(batch)
        self._keep_offset(run, offset)
        return points

    def _send_alone(self, run: TrialRun, event: Event) -> None:
        if event.name == names.ARTIFACT_EVENT:
            run.add_artifact(self.directory, event.payload)
        elif event.name == names.DATASET_EVENT:
            run.add_dataset(event.payload)
        else:
            run.end(event)

    def _offset(self, run: TrialRun) -> int:
        """Offset up to which this store has the journal; 0 if its run was lost and made anew."""
        if self._unsaved is not None and self._unsaved[0] == run.id:
            return self._unsaved[1]
        offset = _trusted_offset(self._read_progress().get(self._store.address), run.id)
        if offset > journal_bytes(self.directory):
            raise JournalError(
                f"{self._journal} is shorter than what was sent of it: "
                f"restore it from a copy, or delete {PROGRESS_FILE} beside it"
            )
        return offset

    def _keep_offset(self, run: TrialRun, offset: int) -> None:
        kept = {"run_id": run.id, "offset": offset, "check": _check(run.id, offset)}
        progress = self._read_progress() | {self._store.address: kept}
        try:
            write_whole(self._progress, json.dumps(progress, indent=2) + "\n")
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._unsaved = run.id, offset  # a full disk must not keep records from the store
        else:
            self._unsaved = None

    def _read_progress(self) -> dict[str, Any]:
        try:
            progress = json.loads(self._progress.read_text())
        except (FileNotFoundError, ValueError, RecursionError):  # a torn file: sending again changes nothing
            return {}
        return progress if isinstance(progress, dict) else {}


def _trusted_offset(kept: Any, run_id: str) -> int:
    """Kept offset for one store; 0 if it is of another run or damaged, so that nothing is left out."""
    if not isinstance(kept, dict) or kept.get("run_id") != run_id:
        return 0
    offset = kept.get("offset")
    return offset if isinstance(offset, int) and kept.get("check") == _check(run_id, offset) else 0


def _check(run_id: str, offset: int) -> int:
    return zlib.crc32(f"{run_id} {offset}".encode())
