"""Runs of a study's trials that other journals made than those at hand.

The output folder was deleted or moved, or another machine ran a part of the study. MLflow then knows
of trials that the disk does not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fnostab.record import names
from fnostab.record.attempt import may_be_at_work
from fnostab.record.outcomes import Outcome
from fnostab.record.trial import StudySpec
from fnostab.tracking.read.summaries import search_trials
from fnostab.tracking.store.store import Store, reported
from fnostab.tracking.upload.trial_run import last_sign_ms

__all__ = ["RunElsewhere", "runs_elsewhere", "set_aside"]


@dataclass(frozen=True)
class RunElsewhere:
    """A trial's run whose journal is not at hand.

    Attributes:
        start_ms: time of its journal's first record, in Unix milliseconds.
        outcome: ``running`` if the run has none.
        owner: 'pid@host' of the process that made it, None if that is not known.
        at_work: whether that process can still be alive.
    """

    run_id: str
    arm: str
    seed: int
    start_ms: int
    outcome: Outcome
    failure_step: int | None
    owner: str | None
    at_work: bool


def runs_elsewhere(
    store: Store, study: StudySpec, starts_ms: Mapping[tuple[str, int], int | None]
) -> list[RunElsewhere]:
    """Runs of the trials in ``starts_ms`` that their journals did not make.

    Args:
        store: that is asked.
        study: they belong to.
        starts_ms: (arm, seed) -> time of the first record of the journal at hand, None without one.

    Raises:
        TrackingError: the store does not answer.
    """
    with reported(store):
        experiment = store.client.get_experiment_by_name(study.experiment)
        if experiment is None:
            return []
        runs = list(search_trials(store, experiment.experiment_id, study.hash))
        keys = [(run.data.tags[names.ARM], int(run.data.tags[names.SEED])) for run in runs]
        return [
            _describe(run)
            for key, run in zip(keys, runs, strict=True)
            if key in starts_ms
            and run.info.start_time != starts_ms[key]
            and run.data.tags.get(names.CONFIG_HASH) == study.config_hashes.get(key[0])
        ]


def set_aside(store: Store, run_id: str) -> None:
    """Let no reader take a run for its trial's any more, so that the trial can have another one.

    Raises:
        TrackingError: the store does not take it.
    """
    with reported(store):
        run = store.client.get_run(run_id)
        if run.info.status == "RUNNING":
            store.client.set_terminated(run_id, "KILLED")
        store.client.update_run(run_id, name=f"{run.data.tags[names.ARM]}-{run.data.tags[names.SEED]} set aside")
        if names.TRIAL_ID in run.data.tags:
            store.client.delete_tag(run_id, names.TRIAL_ID)
        store.client.set_tag(run_id, names.KIND, names.KIND_SET_ASIDE)  # last: a crash before it changes nothing


def _describe(run: Any) -> RunElsewhere:
    tags: Mapping[str, str] = run.data.tags
    failure_step = tags.get(names.FAILURE_STEP)
    ended = run.info.status != "RUNNING"
    return RunElsewhere(
        run_id=run.info.run_id,
        arm=tags[names.ARM],
        seed=int(tags[names.SEED]),
        start_ms=run.info.start_time,
        outcome=Outcome(tags.get(names.OUTCOME, Outcome.RUNNING)) if ended else Outcome.RUNNING,
        failure_step=None if failure_step is None else int(failure_step),
        owner=tags.get(names.OWNER),
        at_work=not ended and may_be_at_work(tags.get(names.OWNER), last_sign_ms(run) / 1000),
    )
