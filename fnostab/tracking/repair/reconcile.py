"""Close orphaned runs: those that are RUNNING although their process is gone.

MLflow has no heartbeat, so the run of a process that died stays RUNNING until somebody checks. The state of the process
is read from the run's journal if that is available, or else from the run's tags and metrics.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fnostab.errors import JournalError
from fnostab.record import names
from fnostab.record.attempt import is_of_elsewhere, last_attempt, may_be_at_work
from fnostab.record.ending import close_if_abandoned, end_of_abandoned, records_of_end
from fnostab.record.folders import LIVE_FILE, folders_with, trial_folders
from fnostab.record.journal import read_journal
from fnostab.record.lines import FILE_NAME, Event, journal_file
from fnostab.tracking.read.single_run import last_sign_ms
from fnostab.tracking.store.paging import NEWEST_FIRST, every, of_kind
from fnostab.tracking.store.store import Store, refusal, reported
from fnostab.tracking.upload.follower import Follower
from fnostab.tracking.upload.identity import run_identity
from fnostab.tracking.upload.live import FOLDER as LIVE_FOLDER
from fnostab.tracking.upload.trial_run import TrialRun

LOCK_TIMEOUT_S = 30
MADE_BY_MLFLOW_RUN = "mlflow.project.entryPoint"  # a tag
Close = Callable[[Store, Any, "_Folders"], "ClosedRun | None"]


@dataclass(frozen=True)
class ClosedRun:
    """Orphaned run that was closed.

    Attributes:
        what: "trial", "live run", "study", "verdict" or "mlflow run".
        outcome: outcome of a trial or live run; status of any other run.
        points_sent: number of points that were sent from its journal.
        reason: explanation of the outcome; None if there is none.
    """

    run_id: str
    name: str
    what: str
    outcome: str
    points_sent: int = 0
    reason: str | None = None


@dataclass(frozen=True)
class Reconciliation:
    """Result of `reconcile`.

    Attributes:
        closed: the closed runs, in order.
        at_work: number of other RUNNING runs, whose process may still be at work.
        refused: one message for each run that could not be closed.
    """

    closed: tuple[ClosedRun, ...]
    at_work: int
    refused: tuple[str, ...] = ()


def reconcile(store: Store, output: str | Path, experiment: str | None = None) -> Reconciliation:
    """Close orphaned runs: send the rest of their journals, then their outcome and status.

    A process of this host is looked up; one of another host counts as alive for 15 minutes after its last sign of life.
    Journals are looked for in ``output`` and ``fnostab_runs``. Of runs that fnostab did not create, only those of
    `mlflow run` that started a study are closed, once the study's launcher is gone. A second call changes nothing.

    Raises:
        TrackingError: the store does not answer; another call continues.
    """
    folders = _Folders((Path(output), Path(LIVE_FOLDER)))
    of_mlflow_run = f"tags.`{MADE_BY_MLFLOW_RUN}` LIKE '%'"
    with reported(store):
        there_are = {e.experiment_id: e.name for e in every(store.client.search_experiments)}
    chosen = [key for key, name in there_are.items() if experiment in (None, name)]
    steps: list[tuple[Close, Sequence[str], str]] = [
        (_close_trial, chosen, of_kind(names.KIND_TRIAL)),
        (_close_trial, chosen, of_kind(names.KIND_LIVE)),
        (_close_study, chosen, of_kind(names.KIND_STUDY)),
        (_close_verdict, chosen, of_kind(names.KIND_VERDICT)),
        (_close_project_run(chosen), list(there_are), f"{of_mlflow_run} AND tags.`{names.STUDY_RUN}` LIKE '%'"),
    ]
    closed: list[ClosedRun] = []
    refused: list[str] = []
    at_work = 0
    for close, experiments, which in steps:
        for run in _running(store, experiments, which):
            try:
                done = close(store, run, folders)
            except Exception as error:  # artifact stores raise errors of their own libraries
                refused.append(f"{run.info.run_name}: {refusal(store, error, 'reconcile again to continue')}")
            else:
                at_work += done is None and names.KIND in run.data.tags
                closed += [done] if done is not None else []
    return Reconciliation(tuple(closed), at_work, tuple(refused))


class _Folders:
    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = roots

    def journal_of(self, run: Any, experiment: str) -> Path | None:
        """Find the directory of a run's journal; None if it is not available."""
        tags = run.data.tags
        if tags[names.KIND] == names.KIND_LIVE:
            directories = self._live.get(tags.get(names.TRIAL_ID), [])
        else:
            trial = tags[names.ARM], tags[names.SEED], tags.get(names.CONFIG_HASH, "")
            plain = all(part == Path(part).name != ".." for part in (experiment, tags[names.STUDY_HASH], *trial))
            studies = [Path(root, experiment, tags[names.STUDY_HASH]) for root in self._roots]
            directories = [each for study in studies for each in trial_folders(study, *trial)] if plain else []
        for directory in directories:
            if journal_file(directory).exists():
                first = next(read_journal(directory / FILE_NAME), None)
                if first is not None and first[0].time_ms == run.info.start_time:
                    return directory
        return None

    @cached_property
    def _live(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for folder in (each for root in self._roots for each in folders_with(root, LIVE_FILE)):
            try:
                found.setdefault(run_identity(folder, None).trial_id, []).append(folder)
            except JournalError:
                continue  # it has no run
        return found


def _close_trial(store: Store, run: Any, folders: _Folders) -> ClosedRun | None:
    experiment = store.client.get_experiment(run.info.experiment_id).name
    directory = folders.journal_of(run, experiment)
    points, payload = 0, None
    if directory is not None:
        follower = Follower(store, directory, lock_timeout_s=LOCK_TIMEOUT_S)
        points = follower.send()  # first: the journal may be an old copy, or the run may lack a part of it
        if follower.is_old_copy:
            directory = None
    if directory is not None:
        records = records_of_end(directory, last_sign_ms(run) / 1000)
        if records is None:
            return None
        points += follower.verify()  # a closed trial is judged, so every point is compared first
        if records and is_of_elsewhere(last_attempt(directory / FILE_NAME).owner):
            follower.close(records)
        elif close_if_abandoned(directory):
            points += follower.send()
        end = records[-1] if records else last_attempt(directory / FILE_NAME).end
        now = store.client.get_run(run.info.run_id)
        if isinstance(end, Event) and now.info.status == "RUNNING":  # its end was sent earlier, and undone by hand
            TrialRun(store, now, run.info.run_name).end(end)
        payload = end.payload if isinstance(end, Event) else {}
    else:
        owner, sign_ms = run.data.tags.get(names.OWNER), last_sign_ms(run)
        if may_be_at_work(owner, sign_ms / 1000):
            return None
        payload = end_of_abandoned(run.data.tags, owner)
        payload["reason"] += "; its journal is not here: run `fnostab sync` where it is to send the rest"
        TrialRun(store, run, run.info.run_name).end(Event(sign_ms, names.OUTCOME_EVENT, payload))
    what = "live run" if run.data.tags[names.KIND] == names.KIND_LIVE else "trial"
    outcome = str(payload.get("outcome") or "not judged")
    return ClosedRun(run.info.run_id, run.info.run_name, what, outcome, points, payload.get("reason"))


def _close_study(store: Store, run: Any, folders: _Folders) -> ClosedRun | None:
    return _kill(store, run, "study", run.data.tags.get(names.OWNER), _last_sign_of_study(store, run))


def _close_verdict(store: Store, run: Any, folders: _Folders) -> ClosedRun | None:
    """Close a verdict that was not completed: its evidence may be missing, and the study can be judged again."""
    return _kill(store, run, "verdict", run.data.tags.get(names.OWNER), run.info.start_time)


def _close_project_run(experiments: Sequence[str]) -> Close:
    """Make the function that closes runs of `mlflow run` that started a study in one of the ``experiments``."""

    def close(store: Store, run: Any, folders: _Folders) -> ClosedRun | None:
        tags = run.data.tags
        mine = run.info.run_id == os.environ.get("MLFLOW_RUN_ID")  # at work, whatever happened to its study
        if mine or names.KIND in tags:
            return None
        study = store.client.get_run(tags[names.STUDY_RUN])
        if study.info.experiment_id not in experiments:
            return None
        sign_ms = _last_sign_of_study(store, study)
        return _kill(store, run, "mlflow run", study.data.tags.get(names.OWNER), sign_ms)

    return close


def _kill(store: Store, run: Any, what: str, owner: str | None, sign_ms: int) -> ClosedRun | None:
    """End a run as KILLED unless its owner, last seen at ``sign_ms`` (Unix milliseconds), may still be at work."""
    if may_be_at_work(owner, sign_ms / 1000):
        return None
    store.client.set_terminated(run.info.run_id, "KILLED", end_time=max(sign_ms, run.info.start_time))
    reason = f"its process {owner or '(unknown)'} is gone"
    return ClosedRun(run.info.run_id, run.info.run_name, what, "KILLED", reason=reason)


def _last_sign_of_study(store: Store, study: Any) -> int:
    """Time of the newest record of a study's trials, as a sign of life of its launcher, in Unix milliseconds."""
    tags, experiment = study.data.tags, study.info.experiment_id
    same = of_kind(names.KIND_TRIAL, str(tags.get(names.STUDY_HASH)))
    signs: list[int] = [study.info.start_time, study.info.end_time or 0]
    for which, order in (
        (f"{same} AND attributes.status = 'RUNNING'", NEWEST_FIRST),
        (same, NEWEST_FIRST),
        (same, ["attributes.end_time DESC"]),
    ):
        for trial in store.client.search_runs([experiment], which, max_results=20, order_by=order):
            signs += [last_sign_ms(trial), trial.info.end_time or 0]
    return min(max(signs), time.time_ns() // 1_000_000)


def _running(store: Store, experiments: Sequence[str], which: str) -> list[Any]:
    """List all RUNNING runs that match a filter before the first one is closed, which would shift the pages."""
    if not experiments:
        return []
    with reported(store):
        wanted = f"attributes.status = 'RUNNING' AND {which}"
        return list(every(store.client.search_runs, list(experiments), wanted))
