"""Bring a store up to date with the journals on disk: after an outage, a crash, or into a new store."""

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from fnostab.errors import FnostabError, JournalError, LaunchError, TrackingError
from fnostab.record import names
from fnostab.record.attempt import is_alive
from fnostab.record.ending import close_if_abandoned
from fnostab.record.journal import FILE_NAME, journal_file, read_journal
from fnostab.record.trial import StudySpec
from fnostab.tracking.store.store import Store, describe, is_refusal, reported
from fnostab.tracking.upload.follower import Follower
from fnostab.tracking.upload.identity import LIVE_FILE, TRIAL_FILE
from fnostab.tracking.upload.study_run import STUDY_FILE, find_or_make_study, finish_study

__all__ = ["SyncReport", "sync"]

LOCK_TIMEOUT_S = 30


@dataclass(frozen=True)
class SyncReport:
    """Result of `sync`.

    Attributes:
        trials: that are up to date now.
        points_sent: to bring them there.
        refused: one line for each trial that could not be sent.
    """

    trials: int
    points_sent: int
    refused: tuple[str, ...] = ()


def sync(path: str | Path, store: Store) -> SyncReport:
    """Send what a store does not have yet of the trials under ``path``.

    A trial whose process died without an outcome is closed, in its journal too. Doing it twice
    sends nothing the second time.

    Args:
        path: a trial's directory, or any above it.
        store: where to.

    Raises:
        JournalError: there is no trial under ``path``.
        TrackingError: the store went away; another call goes on from there.
    """
    directories = sorted(found.parent for name in (TRIAL_FILE, LIVE_FILE) for found in Path(path).rglob(name))
    if not directories:
        raise JournalError(f"there is no trial under {path}: name a trial's directory, or one above it")
    started = [directory for directory in directories if _start_ms(directory) is not None]
    points, refused = 0, []
    for folder, trials in groupby(started, key=lambda directory: directory.parent):
        sent, lines = _sync_siblings(folder, list(trials), store)
        points += sent
        refused += lines
    return SyncReport(len(started) - len(refused), points, tuple(refused))


def _sync_siblings(folder: Path, trials: list[Path], store: Store) -> tuple[int, list[str]]:
    """Send the trials of one study; return how many points that was, and why some could not be sent."""
    points, refused, running = 0, [], False
    try:
        study = _study_run(folder, trials, store)
    except LaunchError as error:
        return 0, [f"{trial}: {error}" for trial in trials]
    for trial in trials:
        try:
            running |= not close_if_abandoned(trial)
            points += Follower(store, trial, study and study.info.run_id, lock_timeout_s=LOCK_TIMEOUT_S).send()
        except FnostabError as error:
            refused.append(f"{trial}: {error}")
        except Exception as error:  # artifact stores raise errors of their own libraries
            if not is_refusal(error):
                raise TrackingError(f"{describe(error, store.uri)}; sync again to go on") from error
            refused.append(f"{trial}: {describe(error, store.uri)}")
    if study and study.info.status == "RUNNING" and not (running or is_alive(study.data.tags.get(names.OWNER))):
        finish_study(store, study.info.run_id)
    return points, refused


def _study_run(folder: Path, trials: list[Path], store: Store) -> Any:
    """The parent run of the trials in ``folder``; None for those that are part of no study."""
    if not any((trial / TRIAL_FILE).exists() for trial in trials):
        return None
    starts = (_start_ms(trial) for trial in trials)
    spec = StudySpec.read(folder / STUDY_FILE)
    with reported(store):
        return find_or_make_study(store, spec, min(filter(None, starts), default=None))


def _start_ms(directory: Path) -> int | None:
    """Time of a journal's first record; None if it has none yet, 0 if it can't be read."""
    journal = directory / FILE_NAME
    if not journal_file(directory).exists():
        return None
    try:
        first = next(read_journal(journal), None)
    except JournalError:
        return 0
    return None if first is None else first[0].time_ms
