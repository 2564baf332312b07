"""Write the notes on the pages of trials and studies."""

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient

from fnostab.record import names
from fnostab.record.trial import StudySpec
from fnostab.tracking.pages.notes import put_note, study_note, trial_note
from fnostab.tracking.read.single_run import read_spec
from fnostab.tracking.read.summaries import read_summaries
from fnostab.tracking.store.paging import NEWEST_FIRST, finished_verdicts
from fnostab.tracking.store.store import Store

FOLDERS = ("figures",)  # artifact folders of a trial whose files its note shows
_log = logging.getLogger(__name__)


def note_trial(client: MlflowClient, run_id: str, outcome: Mapping[str, Any]) -> None:
    """Describe a trial and its end on its page: ``outcome`` is the payload of its outcome event.

    Never raises: an outcome must not be lost with the note on it.
    """
    try:
        run = client.get_run(run_id)
        study = run.data.tags.get(names.PARENT_RUN)
        spec = read_spec(client, study) if study else None
        arms, control = (spec.arms, spec.control) if spec else ({}, "control")
        found = {artifact.path for artifact in client.list_artifacts(run_id)}
        for folder in found.intersection(FOLDERS):
            found |= {artifact.path for artifact in client.list_artifacts(run_id, folder)}
        picture = spec.picture.artifact if spec and spec.picture else None
        put_note(client, run_id, trial_note(run, outcome, arms, control, found, picture))
    except Exception as error:  # artifact stores raise errors of their own libraries
        _log.warning("run %s has no note: %s", run_id, error)


def note_study(store: Store, run_id: str, outcomes: Mapping[str, Counter[str]] | None = None) -> None:
    """Describe a study's arms and the outcomes of their trials on its page, and link its newest verdict.

    Never raises, like `note_trial`. ``outcomes`` counts each outcome by arm; if it is None, the store is queried.
    """
    try:
        spec = read_spec(store.client, run_id)
        if spec is None:
            return
        experiment = store.client.get_run(run_id).info.experiment_id
        newest = store.client.search_runs([experiment], finished_verdicts(run_id), 1, 1, NEWEST_FIRST)
        counts = _outcomes(store, experiment, spec) if outcomes is None else outcomes
        put_note(store.client, run_id, study_note(spec, experiment, counts, newest[0] if newest else None))
    except Exception as error:  # artifact stores raise errors of their own libraries
        _log.warning("study run %s has no note: %s", run_id, error)


def _outcomes(store: Store, experiment: str, spec: StudySpec) -> dict[str, Counter[str]]:
    """Count of each outcome by arm, in the study's order."""
    counts: dict[str, Counter[str]] = {arm: Counter() for arm in spec.arms}
    for run in read_summaries(store, experiment, spec.hash, tags=(names.ARM, names.OUTCOME), metrics=()):
        counts.setdefault(run.tags.get(names.ARM, "?"), Counter())[run.tags.get(names.OUTCOME, "?")] += 1
    return {arm: each for arm, each in counts.items() if each}
