"""Send what a store lacks of the journals on disk: after an outage, after a crash, or into a new store."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from fnostab.errors import JournalError
from fnostab.record import names
from fnostab.record.attempt import may_be_at_work
from fnostab.record.ending import records_of_end
from fnostab.record.folders import STUDY_FILE, TRIAL_FILE, insist_on_trials
from fnostab.record.journal import read_journal
from fnostab.record.lines import FILE_NAME, journal_file
from fnostab.record.safe_files import changed_s
from fnostab.record.trial import StudySpec
from fnostab.tracking.store.store import Store, refusal
from fnostab.tracking.upload.follower import Follower
from fnostab.tracking.upload.study_run import find_or_make_study, finish_study

LOCK_TIMEOUT_S = 30


@dataclass(frozen=True)
class SyncReport:
    """Result of `sync`.

    Attributes:
        trials: number of trials that are up to date now, apart from what ``refused`` says.
        points_sent: number of points that the store lacked.
        refused: one message for each study record, trial, or record of a trial that could not be sent.
        otherwise: one message for each metric or param that differs between run and journal; only when verified.
    """

    trials: int
    points_sent: int
    refused: tuple[str, ...] = ()
    otherwise: tuple[str, ...] = ()


def sync(path: str | Path, store: Store, *, verify: bool = False) -> SyncReport:
    """Send what a store lacks of the trials under ``path``.

    Each run says how much of its journal it has; with ``verify`` every point is compared. The run of a trial whose
    process died without an outcome is closed. Nothing is written under ``path``, which may be a copy. A second call
    sends nothing.

    Raises:
        JournalError: no trial found under ``path``.
        TrackingError: the store became unavailable; another call continues.
    """
    directories = insist_on_trials(path)
    starts = {directory: _start_ms(directory) for directory in directories}
    started = [directory for directory, start_ms in starts.items() if start_ms is not None]
    report = SyncReport(0, 0)
    started.sort(key=lambda directory: directory.parent)  # paths alone would separate siblings
    for folder, trials in groupby(started, key=lambda directory: directory.parent):
        study = _Siblings(folder, {trial: starts[trial] or 0 for trial in trials}, store, verify)
        study.sync()
        report = SyncReport(
            report.trials + study.sent,
            report.points_sent + study.points,
            (*report.refused, *study.refused),
            (*report.otherwise, *study.otherwise),
        )
    return report


class _Siblings:
    """Upload of trials in one folder; ``trials`` has the time of each one's first record in Unix milliseconds."""

    def __init__(self, folder: Path, trials: dict[Path, int], store: Store, verify: bool) -> None:
        self.sent = self.points = 0
        self.refused: list[str] = []
        self.otherwise: list[str] = []
        self._folder = folder
        self._trials = trials
        self._store = store
        self._verify = verify
        self._at_work = False

    def sync(self) -> None:
        """Send each trial, even if others fail."""
        study = None
        with self._named(f"{self._folder / STUDY_FILE}, without which its trials are sent"):
            study = self._study_run()
        for trial in self._trials:
            with self._named(str(trial)):
                self._sync_trial(trial, study and study.info.run_id)
                self.sent += 1
        if study and study.info.status == "RUNNING" and not self._at_work:
            last_sign_s = max(changed_s(journal_file(trial)) for trial in self._trials)
            owner = study.data.tags.get(names.OWNER)
            if owner is None or not may_be_at_work(owner, last_sign_s):
                finish_study(self._store, study.info.run_id)

    @contextmanager
    def _named(self, what: str) -> Iterator[None]:
        """Keep a message about what can't be sent, and continue, unless the store is unavailable."""
        try:
            yield
        except Exception as error:  # artifact stores raise errors of their own libraries
            self.refused.append(f"{what}: {refusal(self._store, error, 'sync again to continue')}")

    def _sync_trial(self, trial: Path, study_run_id: str | None) -> None:
        if not journal_file(trial).exists():
            raise JournalError(f"{FILE_NAME} is a broken link: put the journal in its place")
        follower = Follower(self._store, trial, study_run_id, lock_timeout_s=LOCK_TIMEOUT_S)
        self.points += follower.send()
        end = None
        if follower.is_old_copy:  # the newer records of the trial are elsewhere
            self._at_work = True
        else:
            end = records_of_end(trial, follower.last_sign_s(), leave_out=lambda line: None)  # the follower reports it
            self._at_work |= end is None
            if end:
                follower.close(end)
        if self._verify:
            self.points += follower.verify(end or ())
            self.otherwise += [f"{trial}: {line}" for line in follower.otherwise]
        self.refused += [f"{trial}: {line}" for line in follower.left_out]

    def _study_run(self) -> Any:
        """Find or create the parent run of the trials; None if they are outside any study."""
        if not any((trial / TRIAL_FILE).exists() for trial in self._trials):
            return None
        spec = StudySpec.read(self._folder / STUDY_FILE)
        return find_or_make_study(self._store, spec, min(filter(None, self._trials.values()), default=None))


def _start_ms(directory: Path) -> int | None:
    """Time of a journal's first record in Unix milliseconds; None if it has none yet, 0 if it can't be read."""
    if not os.path.lexists(journal_file(directory)):
        return None
    try:
        first = next(read_journal(directory / FILE_NAME), None)
    except JournalError:
        return 0
    return None if first is None else first[0].time_ms
