"""Follow a running study through its store, with few queries.

A poll asks for the running runs and those that ended last: two searches, however large the study is. All outcomes are
read in full only from time to time. Of histories, only the window maxima of the gradient norm (at most 300 points per
run) and its spikes are read, and only for runs in which they have grown.
"""

import math
import os
import time
from collections.abc import Mapping
from typing import Any

from fnostab.errors import TrackingError
from fnostab.record import names
from fnostab.record.attempt import is_alive, is_foreign, may_be_at_work
from fnostab.record.outcomes import Outcome
from fnostab.record.progress import TrialState
from fnostab.tracking.read.histories import metric_histories
from fnostab.tracking.read.single_run import last_sign_ms
from fnostab.tracking.read.summaries import read_summaries, search_trials, trial_state
from fnostab.tracking.store.database import sqlite_file
from fnostab.tracking.store.paging import NEWEST_FIRST, every, of_kind
from fnostab.tracking.store.store import DEFAULT_URI, Store, open_store, reported

RECENT = 20  # ended runs that a poll reads in full
HISTORIES = 16  # histories that are read in one poll, at most
SHARE_OF_FULL = 0.1  # share of the time that is spent on reading all outcomes
TAGS = (names.ARM, names.SEED, names.OUTCOME, names.FAILURE_STEP, names.REASON, names.OWNER, names.SCHEDULED_STEPS)
METRICS = (names.TRAIN_LOSS, names.GRAD_NORM, names.SPIKES, names.LAST_STEP)


class StudyWatch:
    """Poller of one study in a store."""

    def __init__(self, store: Store, experiment: str, study_hash: str, study_run: str) -> None:
        self._store = store
        self._experiment = experiment
        self._hash = study_hash
        self._study_run = study_run
        self._trials: dict[str, TrialState] = {}
        self._histories: dict[tuple[str, str], tuple[int, tuple[tuple[int, float], ...]]] = {}
        self._next_full_s = 0.0

    def poll(self) -> list[TrialState]:
        """Read the current states of the study's trials, unordered.

        Raises:
            TrackingError: the store does not answer.
        """
        with reported(self._store):
            if time.monotonic() >= self._next_full_s:
                self._read_all()
            search, where = self._store.client.search_runs, [self._experiment]
            of_study = of_kind(names.KIND_TRIAL, self._hash)
            ended, newest = f"{of_study} AND attributes.status != 'RUNNING'", ["attributes.end_time DESC"]
            runs = list(every(search, where, f"{of_study} AND attributes.status = 'RUNNING'"))
            runs += search(where, ended, max_results=RECENT, order_by=newest)
        budget = HISTORIES
        for run in runs:
            steps = {metric.key: metric.step for metric in run.data.to_proto().metrics}
            budget -= self._read_histories(run, steps, budget)
            self._trials[run.info.run_id] = self._describe(run, steps)
        return list(self._trials.values())

    def ended(self) -> str | None:
        """End of the study: MLflow's status, or "gone" if its process died; None while it runs.

        Raises:
            TrackingError: the store does not answer.
        """
        with reported(self._store):
            run = self._store.client.get_run(self._study_run)
        if run.info.status != "RUNNING":
            return str(run.info.status)
        owner = run.data.tags.get(names.OWNER)
        return None if owner is None or is_foreign(owner) or is_alive(owner) else "gone"

    def _read_all(self) -> None:
        """Read every trial's state: few values from a database, whole runs from a server."""
        started = time.monotonic()
        before, self._trials = self._trials, {}
        if self._store.uri.startswith("http"):
            found = search_trials(self._store, self._experiment, self._hash, lambda run: self._describe(run, {}))
            self._trials = {run_id: trial for trial in found if (run_id := trial.run_id)}
        else:
            rows = read_summaries(self._store, self._experiment, self._hash, tags=TAGS, metrics=METRICS)
            for run_id, _, _, tags, metrics in rows:
                seen = before.get(run_id)
                if seen is not None and seen.ended_s is not None:  # known in full; `poll` finds new attempts
                    self._trials[run_id] = seen
                else:
                    at_work = tags.get(names.OUTCOME) == Outcome.RUNNING
                    self._trials[run_id] = trial_state(run_id, tags, metrics, at_work=at_work)
        ended = time.monotonic()
        self._next_full_s = ended + (ended - started) / SHARE_OF_FULL

    def _describe(self, run: Any, steps: Mapping[str, int]) -> TrialState:
        at_work, info, run_id = run.info.status == "RUNNING", run.info, run.info.run_id
        trial = trial_state(run_id, run.data.tags, run.data.metrics, at_work=at_work)
        trial.running = at_work and may_be_at_work(trial.owner, last_sign_ms(run) / 1000)
        trial.step = steps.get(names.GRAD_NORM, trial.step)
        if trial.spikes is None and at_work:
            trial.spikes = len(self._history(run_id, names.SPIKE))
        trial.started_s = trial.training_since_s = info.start_time / 1000
        trial.ended_s = None if at_work or info.end_time is None else info.end_time / 1000
        since = 0
        for step, norm in self._history(run_id, names.GRAD_NORM_WINDOW_MAX):
            trial.curve.add(norm, step, since)
            since = step + 1
        if trial.outcome is Outcome.NONFINITE and trial.failure_step is not None and trial.curve:
            trial.curve.add(math.inf, trial.failure_step)  # a store holds finite numbers only
        return trial

    def _history(self, run_id: str, metric: str) -> tuple[tuple[int, float], ...]:
        return self._histories.get((run_id, metric), (-1, ()))[1]

    def _read_histories(self, run: Any, steps: Mapping[str, int], budget: int) -> int:
        """Read the histories of a run that have grown, with at most ``budget`` requests; return their number."""
        asked = 0
        for metric in (names.GRAD_NORM_WINDOW_MAX, names.SPIKE):
            key = run.info.run_id, metric
            if metric in steps and self._histories.get(key, (-1,))[0] != steps[metric] and asked < budget:
                asked += 1
                history = metric_histories(self._store, [run.info.run_id], metric)[run.info.run_id]
                points = zip(*history, strict=True)
                self._histories[key] = steps[metric], tuple((int(step), float(norm)) for step, norm in points)
        return asked


def existing_store(uri: str | None = None) -> Store:
    """Open a store for reading: like `open_store`, but a missing database is not created.

    Raises:
        TrackingError: the store can't be opened, or there is no such database.
    """
    name = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    path = sqlite_file(name)
    if path is not None and not path.exists():
        raise TrackingError(
            f"no tracking database at {path}: name it with --tracking-uri, as in sqlite:///mlruns.db, "
            "or run a study first (`fnostab run STUDY`)"
        )
    return open_store(uri)


def newest_experiment(store: Store) -> str:
    """Name of the experiment whose study started last.

    Raises:
        TrackingError: the store holds no study, or does not answer.
    """
    with reported(store):
        experiments = {e.experiment_id: e.name for e in every(store.client.search_experiments)}
        ids = list(experiments)
        found = store.client.search_runs(ids, of_kind(names.KIND_STUDY), 1, 1, NEWEST_FIRST) if ids else []
    if not found:
        raise TrackingError(
            f"no study is recorded in {store.address}: start one with `fnostab run stage_a`, "
            "or name another store with --tracking-uri"
        )
    return str(experiments[found[0].info.experiment_id])


def find_study(store: Store, experiment: str, study_hash: str) -> tuple[str, str] | None:
    """IDs of the experiment called ``experiment`` and of a study's parent run in it; None if there is no such run.

    Raises:
        TrackingError: the store does not answer.
    """
    same = of_kind(names.KIND_STUDY, study_hash)
    with reported(store):
        found = store.client.get_experiment_by_name(experiment)
        runs = store.client.search_runs([found.experiment_id], same, 1, 1) if found is not None else []
    return (str(found.experiment_id), str(runs[0].info.run_id)) if runs else None
