"""One trial's run in MLflow."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from mlflow.entities import Dataset, DatasetInput, InputTag

from fnostab.errors import JournalError, TrackingError
from fnostab.record import names
from fnostab.record.attempt import starts_attempt
from fnostab.record.journal import Event, Point
from fnostab.record.outcomes import TRAINING_OUTCOMES, Judgement, Outcome, outcome_payload
from fnostab.record.trial import TrialSpec
from fnostab.tracking.pages.notes import withdraw_note
from fnostab.tracking.store.store import Store, experiment_id, find_or_make_run, reported
from fnostab.tracking.upload.batch import Batch
from fnostab.tracking.upload.identity import RunIdentity
from fnostab.tracking.upload.study_run import note_trial

__all__ = ["TrialRun", "end_unwritten", "last_sign_ms"]

STATUS: Mapping[str | None, str] = {  # of every other outcome: FINISHED
    Outcome.OOM: "FAILED",
    Outcome.INFRA_ERROR: "FAILED",
    Outcome.KILLED: "KILLED",
}
OUTCOME_TAGS = {  # field of an outcome event -> tag
    "outcome": names.OUTCOME,
    "failure_step": names.FAILURE_STEP,
    "known_good_step": names.FAILURE_AFTER,
    "rules_held": names.RULES_HELD,
    "not_judged": names.NOT_JUDGED,
    "reason": names.REASON,
}
LONGEST_DIGEST = 36  # that MLflow accepts
_log = logging.getLogger(__name__)


class TrialRun:
    """A run that is there in MLflow, and what has to be known to go on with it."""

    def __init__(self, store: Store, run: Any, run_name: str) -> None:
        self.id: str = run.info.run_id
        self._client = store.client
        self._name = run_name
        self.is_thinned = names.THINNED in run.data.tags
        self._params = set(run.data.params)
        self._ended = run.info.status != "RUNNING"
        self._outcome = run.data.tags.get(names.OUTCOME)

    @classmethod
    def find_or_make(cls, store: Store, identity: RunIdentity, start_ms: int) -> Self:
        """The run of a trial: looked up by its tag, so that no crash makes a second one.

        Args:
            store: that holds it, or will.
            identity: of the trial.
            start_ms: time of the journal's first record. It tells this record of the trial from
                another one that was made in another directory.

        Raises:
            TrackingError: the run holds such another record.
        """
        experiment = experiment_id(store, identity.experiment)
        same_trial = f"tags.`{names.TRIAL_ID}` = '{identity.trial_id}'"
        run = find_or_make_run(
            store,
            experiment,
            same_trial,
            lambda: store.client.create_run(experiment, start_ms, dict(identity.tags), run_name=identity.run_name),
        )
        if run.info.start_time != start_ms:
            raise TrackingError(
                f"trial {identity.trial_id} was recorded from another directory, in run {run.info.run_id}: "
                "go on in that directory, or delete that run"
            )
        return cls(store, run, identity.run_name)

    def send(self, batch: Batch) -> None:
        """Send points, params and tags."""
        for arguments in batch.calls(self._params):
            self._client.log_batch(self.id, **arguments, synchronous=True)
        self._params |= batch.params.keys()

    def goes_on_with(self, record: Point | Event) -> bool:
        """Whether ``record`` belongs to a new attempt at a trial that ended without a training outcome."""
        return self._ended and self._outcome not in TRAINING_OUTCOMES and starts_attempt(record)

    def reopen(self) -> None:
        """Set it running again, without the outcome of the attempt before."""
        stale = self._client.get_run(self.id).data.tags.keys() & OUTCOME_TAGS.values()
        for tag in sorted(stale):
            self._client.delete_tag(self.id, tag)
        withdraw_note(self._client, self.id)
        if names.OUTCOME in stale:
            self._client.set_tag(self.id, names.OUTCOME, str(Outcome.RUNNING))
        self._client.update_run(self.id, status="RUNNING", name=self._name)
        self._ended, self._outcome = False, None

    def end(self, event: Event) -> None:
        """Write an outcome and end the run with the status that goes with it."""
        outcome = event.payload.get("outcome")
        stale = self._client.get_run(self.id).data.tags.keys() if self._ended else ()  # it was judged by other rules
        for field, tag in OUTCOME_TAGS.items():
            value = event.payload.get(field)
            if value in (None, [], "") and tag in stale:
                self._client.delete_tag(self.id, tag)
            if value not in (None, [], ""):
                self._client.set_tag(self.id, tag, "; ".join(value) if isinstance(value, list) else str(value))
        if outcome is not None:
            self._client.update_run(self.id, name=f"{self._name} {outcome}")
        note_trial(self._client, self.id, event.payload)
        self._client.set_terminated(self.id, STATUS.get(outcome, "FINISHED"), end_time=event.time_ms)
        self._ended, self._outcome = True, outcome

    def add_artifact(self, directory: Path, payload: Mapping[str, Any]) -> None:
        """Copy a file or folder of the trial's directory.

        Raises:
            JournalError: there is no path, or it, or a link in the folder that it names, leads out of that directory.
        """
        name = payload.get("path")
        if not isinstance(name, str):
            raise JournalError(f"{directory}: an artifact without a path")
        path, home = (directory / name).resolve(), directory.resolve()
        for each in (path, *path.rglob("*")):
            if not each.resolve().is_relative_to(home):
                raise JournalError(f"{directory}: artifact {name!r} lies outside the trial's directory")
        if path.is_dir():
            self._client.log_artifacts(self.id, str(path), payload.get("artifact_path"))
        elif path.exists():
            self._client.log_artifact(self.id, str(path), payload.get("artifact_path"))
        else:
            _log.warning("%s is gone and was not copied to MLflow", path)

    def add_dataset(self, payload: Mapping[str, Any]) -> None:
        """Name a data set that the trial used."""
        dataset = Dataset(payload["name"], payload["digest"][:LONGEST_DIGEST], "local", payload["source"])
        context = InputTag("mlflow.data.context", payload.get("context", "train"))
        self._client.log_inputs(self.id, [DatasetInput(dataset, [context])])


def last_sign_ms(run: Any) -> int:
    """Time of the newest metric of a run's trial, or of its start (Unix milliseconds).

    It is in what `search_runs` gives, so that no history need be read.
    """
    signs: list[int] = [metric.timestamp for metric in run.data.to_proto().metrics]
    newest: int = max([run.info.start_time, *signs])
    return newest


def end_unwritten(store: Store, trial: TrialSpec, outcome: Outcome, reason: str) -> None:
    """End the run of a trial, if it has one, whose journal could not take its outcome: its disk is full, say.

    Raises:
        TrackingError: the store does not take it.
    """
    with reported(store):
        experiment = experiment_id(store, trial.experiment)
        same_trial = f"tags.`{names.TRIAL_ID}` = '{trial.trial_id}'"
        for run in store.client.search_runs([experiment], same_trial, max_results=1):
            payload = outcome_payload(Judgement(outcome), reason)
            event = Event(time.time_ns() // 1_000_000, names.OUTCOME_EVENT, payload)
            TrialRun(store, run, f"{trial.arm}-{trial.seed}").end(event)
