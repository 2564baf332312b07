"""Find runs of a study's trials that were recorded from journals other than those on disk.

This happens if the output folder was deleted or moved, or if another machine ran a part of the study.
"""

from collections.abc import Mapping
from typing import Any

from fnostab.record import names
from fnostab.record.attempt import may_be_at_work
from fnostab.record.folders import trial_name
from fnostab.record.progress import TrialState
from fnostab.record.trial import StudySpec
from fnostab.tracking.read.single_run import last_sign_ms
from fnostab.tracking.read.summaries import search_trials, trial_state
from fnostab.tracking.store.store import Store, reported


def runs_elsewhere(store: Store, study: StudySpec, starts_ms: Mapping[tuple[str, int], int | None]) -> list[TrialState]:
    """States of the trials in ``starts_ms`` whose runs were recorded from another journal.

    ``starts_ms`` has, by arm and seed, the time of the first record of the journal on disk in Unix milliseconds, None
    without one. In the states, ``first_ms`` is that time of the other journal, and ``running`` says whether its process
    may still be at work.

    Raises:
        TrackingError: the store does not answer.
    """
    with reported(store):
        experiment = store.client.get_experiment_by_name(study.experiment)
        if experiment is None:
            return []
        return [
            _describe(run)
            for run in search_trials(store, experiment.experiment_id, study.hash)
            if (key := (run.data.tags[names.ARM], int(run.data.tags[names.SEED]))) in starts_ms
            and run.info.start_time != starts_ms[key]
            and run.data.tags.get(names.CONFIG_HASH) == study.config_hashes.get(key[0])
        ]


def set_aside(store: Store, run_id: str) -> None:
    """Detach a run from its trial, so that the trial can have another run.

    Raises:
        TrackingError: the store refuses it or does not answer.
    """
    with reported(store):
        run = store.client.get_run(run_id)
        if run.info.status == "RUNNING":
            store.client.set_terminated(run_id, "KILLED")
        name = trial_name(run.data.tags[names.ARM], run.data.tags[names.SEED])
        store.client.update_run(run_id, name=f"{name} set aside")
        if names.TRIAL_ID in run.data.tags:
            store.client.delete_tag(run_id, names.TRIAL_ID)
        store.client.set_tag(run_id, names.KIND, names.KIND_SET_ASIDE)  # last: after a crash, the run is still found


def _describe(run: Any) -> TrialState:
    trial = trial_state(run.info.run_id, run.data.tags, run.data.metrics, at_work=run.info.status == "RUNNING")
    trial.first_ms = run.info.start_time
    trial.running &= may_be_at_work(trial.owner, last_sign_ms(run) / 1000)
    return trial
