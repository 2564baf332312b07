"""Send one journal to one run: every record once, even after a crash or when the store is replaced.

The run itself says how much of its journal it has (`fnostab.tracking.upload.mark`); this is read before each upload.
After a crash before the mark was written, the same records are sent again, which changes nothing: MLflow keeps one
point for the same metric, step, time and value, and the time comes from the journal. A run whose points were thinned
by `fnostab prune` gets no more points.

A record that can't be read, or a part of one that the store refuses, is left out with a message; the rest is sent.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fnostab.errors import JournalError
from fnostab.record import names
from fnostab.record.attempt import last_attempt
from fnostab.record.journal import read_journal
from fnostab.record.lines import FILE_NAME, Event, Point, journal_file
from fnostab.record.safe_files import HeldElsewhereError, held
from fnostab.tracking.read.single_run import last_sign_ms
from fnostab.tracking.store.errors import describe
from fnostab.tracking.store.store import Store, is_of_one_run
from fnostab.tracking.upload.batch import Batch, RunNames
from fnostab.tracking.upload.identity import run_identity
from fnostab.tracking.upload.mark import NOTHING, Mark, place_of
from fnostab.tracking.upload.trial_run import AGAIN, TrialRun

SENT_ALONE = (names.ARTIFACT_EVENT, names.DATASET_EVENT, names.OUTCOME_EVENT)


class Follower:
    """Uploader of one trial's journal; of the processes that can lock the journal, only one at a time sends it.

    Nothing is written into the trial's directory.

    Args:
        store: tracking store to send to.
        directory: directory of the trial.
        study_run_id: parent run; None if there is none.
        lock_timeout_s: time to wait for another process that sends the same journal.

    Attributes:
        is_old_copy: whether `send` found that this journal is an older copy of the run's.
        otherwise: messages of `verify`, one for each param and metric that differs between run and journal.
    """

    def __init__(
        self, store: Store, directory: Path, study_run_id: str | None = None, *, lock_timeout_s: float = 0
    ) -> None:
        self.directory = directory
        self.is_old_copy = False
        self.otherwise: tuple[str, ...] = ()
        self._store = store
        self._study_run_id = study_run_id
        self._lock_timeout_s = lock_timeout_s
        self._journal = directory / FILE_NAME
        self._sent_at: tuple[int, int] | None = None
        self._run: TrialRun | None = None
        self._names: RunNames | None = None
        self._at = NOTHING  # position up to which this process has sent the journal
        self._marked: Mark | None = None  # mark that this process left in the run
        self._again = False  # whether an artifact could not be sent; the mark then stays before it

    @property
    def left_out(self) -> tuple[str, ...]:
        """One message for each record, or part of one, that could not be sent, with the reason."""
        return () if self._names is None else tuple(self._names.left_out)

    @property
    def is_behind(self) -> bool:
        """Whether the journal changed since it was last sent."""
        return self._state() != self._sent_at

    def send(self) -> int:
        """Send all new records; return the number of points sent.

        Raises:
            JournalError: the journal can't be read, or another process is sending it.
            Exception: an error of MLflow, if the store refuses the records or does not answer. The next call
                continues after what was sent.
        """
        state = self._state()
        if state == self._sent_at:
            return 0
        with self._sending():
            points = self._send_new()
        self._sent_at = state
        return points

    def close(self, records: Iterable[Point | Event]) -> None:
        """End the run with records that its journal lacks, unless it has ended; the journal is not changed."""
        with self._sending():
            run = self._find()
            if run is not None and not run.has_ended:
                self._deliver(run, ((record, None) for record in records))

    def verify(self, closed_with: Iterable[Point | Event] = ()) -> int:
        """Compare the run with the whole journal, and send what it lacks; return the number of points sent.

        ``closed_with`` are the records that `close` sent, which the journal lacks. A thinned run is skipped.
        """
        with self._sending():
            run = self._find()
            return 0 if run is None or run.is_thinned else self._mend(run, closed_with)

    def last_sign_s(self) -> float:
        """Unix time of the newest point in the trial's run, or of the run's start; 0 if no run was looked up."""
        return 0.0 if self._run is None else last_sign_ms(self._run.run) / 1000

    def _state(self) -> tuple[int, int] | None:
        """Size in bytes and modification time in ns; the size alone may be unchanged after a torn line was cut off."""
        try:
            stat = journal_file(self.directory).stat()
        except FileNotFoundError:
            return None
        return stat.st_size, stat.st_mtime_ns

    @contextmanager
    def _sending(self) -> Iterator[None]:
        path = journal_file(self.directory)
        with ExitStack() as stack:
            try:
                stack.enter_context(held(path, self._lock_timeout_s))
            except HeldElsewhereError:
                raise JournalError(f"{self.directory} is being sent by another process: wait for it to end") from None
            except OSError as error:
                raise JournalError(f"can't read {path}: {error.strerror or error}") from error
            try:
                yield
            except Exception:
                self._run = None  # it may be gone: look it up again
                raise

    def _find(self) -> TrialRun | None:
        """Find the trial's run, or create it; None as long as nothing is recorded."""
        if self._run is None or not self._run.refresh():
            damaged = list[str]()
            first = next(read_journal(self._journal, leave_out=damaged.append), None)
            if first is None:
                if damaged:
                    raise JournalError(f"{damaged[0]}, and holds no other record: restore it from a copy")
                return None
            identity = run_identity(self.directory, self._study_run_id)
            self._run = TrialRun.find_or_make(self._store, identity, start_ms=first[0].time_ms)
            self._names, self._marked, self._again = self._run.names, None, False
        return self._run

    def _send_new(self) -> int:
        run = self._find()
        if run is None or run.is_thinned:  # sending them again would undo the thinning
            return 0
        if run.mark != self._marked:  # not left by this process: the store was replaced, or another process sent
            place = self._place(run)
            self.is_old_copy = place is None
            if place is None:
                return self._mend(run)
            self._at = self._marked = place
        points = self._deliver(run, read_journal(self._journal, self._at.offset, run.names.leave_out))
        run.say_left_out()
        return points

    def _place(self, run: TrialRun) -> Mark | None:
        """Position up to which the run has this journal; None if this is an older copy of the run's journal.

        The names in the records up to there are reserved, so that later records get the same names.
        """
        damaged = list[str]()
        place = place_of(run.mark, self._journal, run.names.note, damaged.append)
        if place == run.mark:
            run.take_over_left_out()
            for line in damaged:
                run.names.leave_out(line)
        return place

    def _deliver(self, run: TrialRun, records: Iterable[tuple[Point | Event, int | None]]) -> int:
        """Send records, each batch with a mark; return the number of points. Records without an offset get no mark."""
        points, batch = 0, Batch(run.names)
        for record, end in records:
            if run.goes_on_with(record):
                run.reopen()
            alone = isinstance(record, Event) and record.name in SENT_ALONE
            if (alone and batch) or not batch.has_room_for(record):
                run.send(batch, self._marked)
                batch = Batch(run.names)
            if isinstance(record, Event) and alone:
                self._again |= not self._sent_alone(run, record)
            else:
                batch.add(record)
            points += isinstance(record, Point) and bool(record.values)
            if end is not None:
                self._at = Mark.behind(record, end)
                self._marked = self._marked if self._again else self._at
        run.send(batch, self._marked)
        return points

    def _sent_alone(self, run: TrialRun, event: Event, *, again: bool = False) -> bool:
        """Send an event that fits in no batch; return False if its file can't be sent now and must be retried later.

        ``again``: whether the artifact may have been sent before.
        """
        if event.name == names.OUTCOME_EVENT:
            run.end(event)
            return True
        try:
            if event.name == names.ARTIFACT_EVENT:
                run.add_artifact(self.directory, event.payload, only_if_lacking=again)
            else:
                run.add_dataset(event.payload)
        except JournalError as error:
            run.names.leave_out(str(error))
        except Exception as error:  # artifact stores raise errors of their own libraries
            if not is_of_one_run(self._store, error):
                raise
            what = event.payload.get("path") or event.payload.get("name")
            run.names.leave_out(f"{event.name} {str(what)[:80]!r}: {describe(error, self._store.uri)}{AGAIN}")
            return False
        return True

    def _mend(self, run: TrialRun, closed_with: Iterable[Point | Event] = ()) -> int:
        """Send what the run lacks of the journal, without moving its mark; return the number of points sent."""
        whole = Batch(run.names)
        for record, _ in read_journal(self._journal, leave_out=run.names.leave_out):
            whole.add(record)
            if isinstance(record, Event) and record.name == names.ARTIFACT_EVENT:
                self._sent_alone(run, record, again=True)
        for record in closed_with:
            whole.add(record)
        lacking, otherwise = run.compare(whole)
        self.otherwise = () if self.is_old_copy else tuple(otherwise)
        run.send(lacking)
        end = last_attempt(self._journal, leave_out=lambda line: None).end  # reported above
        if end is not None and not self.is_old_copy and run.lacks_end(end):
            run.end(end)
        run.say_left_out()
        return len({(each.step, each.timestamp) for each in lacking.metrics})
