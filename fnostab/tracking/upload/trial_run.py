"""One trial's run in MLflow."""

import errno
import logging
import re
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric
from mlflow.exceptions import MlflowException

from fnostab.errors import JournalError, TrackingError
from fnostab.record import names
from fnostab.record.attempt import starts_attempt
from fnostab.record.lines import Event, Point
from fnostab.record.outcome_tags import OUTCOME_TAGS, outcome_tags
from fnostab.record.outcomes import TRAINING_OUTCOMES, Judgement, Outcome, outcome_payload
from fnostab.record.trial import TrialSpec
from fnostab.tracking.pages.notes import withdraw_note
from fnostab.tracking.pages.run_notes import note_trial
from fnostab.tracking.read.single_run import named_outcome, status_of
from fnostab.tracking.store.errors import describe, is_refusal
from fnostab.tracking.store.store import Store, experiment_id, find_or_make_run, reported
from fnostab.tracking.upload.batch import Batch, RunNames, clean
from fnostab.tracking.upload.identity import RunIdentity
from fnostab.tracking.upload.mark import Mark
from fnostab.tracking.upload.study_run import colour_tags

# tags by which readers find and tell trials
OF_IDENTITY = {names.KIND, names.STUDY_HASH, names.ARM, names.SEED, names.CONFIG_HASH, names.PARENT_RUN}
AGAIN = "; `fnostab sync` tries it again"  # ends the message about a file that can't be sent now
MOST_NAMED = 20  # messages about left-out records in the run's tag
LONGEST_LINE = 240  # characters of such a message
LONGEST_DIGEST = 36  # characters that MLflow accepts
_MORE = re.compile(r"and \d+ more")
_log = logging.getLogger(__name__)


class TrialRun:
    """Existing run in MLflow, with the state needed to continue it."""

    def __init__(self, store: Store, run: Any, run_name: str, protected: Collection[str] = ()) -> None:
        self.id: str = run.info.run_id
        self.names = RunNames(protected)
        self._store = store
        self._client = store.client
        self._name = run_name
        self._take(run)

    def _take(self, run: Any) -> None:
        self.run = run
        self.is_thinned = names.THINNED in run.data.tags
        self.mark = Mark.read(run.data.tags.get(names.SENT))
        self.has_ended = run.info.status != "RUNNING"
        self._params = set(run.data.params)
        self._outcome = run.data.tags.get(names.OUTCOME)

    def refresh(self) -> bool:
        """Read the run from the store again; return whether it still exists."""
        try:
            run = self._client.get_run(self.id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        self._take(run)
        return bool(run.info.lifecycle_stage == "active")

    @classmethod
    def find_or_make(cls, store: Store, identity: RunIdentity, start_ms: int) -> Self:
        """Find a trial's run by its tag, or create it; a crash in between leads to no second run.

        ``start_ms`` is the time of the journal's first record (Unix milliseconds). It tells this journal from one of
        the same trial in another directory.

        Raises:
            TrackingError: the run was recorded from another directory.
        """
        experiment = experiment_id(store, identity.experiment)

        def colour() -> dict[str, str]:
            return colour_tags(store.client, identity.tags.get(names.PARENT_RUN), identity.tags.get(names.ARM))

        run = find_or_make_run(
            store,
            experiment,
            _of_trial(identity.trial_id),
            lambda: store.client.create_run(experiment, start_ms, dict(identity.tags) | colour(), identity.run_name),
        )
        if run.info.start_time != start_ms:
            raise TrackingError(
                f"trial {identity.trial_id} was recorded from another directory, in run {run.info.run_id}: "
                "continue in that directory, or delete that run"
            )
        for name in OF_IDENTITY & identity.tags.keys():  # changed by hand, or restored from an older backup
            if run.data.tags.get(name) != identity.tags[name]:
                store.client.set_tag(run.info.run_id, name, identity.tags[name])
        return cls(store, run, identity.run_name, identity.tags.keys() - {names.OUTCOME, names.VERSION})

    def send(self, batch: Batch, mark: Mark | None = None) -> None:
        """Send points, params and tags, and with the last of them ``mark``."""
        text = None if mark is None or mark == self.mark else str(mark)
        for arguments in batch.calls(self._params, text):
            self._log_entries(**arguments)
        self._params |= batch.params.keys()
        self.mark = mark or self.mark

    def _log_entries(self, **entries: Any) -> None:
        """Log entries; those that the store refuses are left out with a message."""
        try:
            self._client.log_batch(self.id, **entries, synchronous=True)
        except Exception as error:
            if not (_is_of_an_entry(error) and self.refresh()):
                raise
            every = [(kind, entry) for kind in ("metrics", "params", "tags") for entry in entries[kind]]
            if len(every) == 1:
                ((kind, entry),) = every
                self.names.leave_out(f"{kind[:-1]} {entry.key[:80]!r}: {describe(error, self._store.uri)}")
                return
            half = len(every) // 2
            for part in (every[:half], every[half:]):  # in their order: the mark is the last
                self._log_entries(**{kind: [entry for of, entry in part if of == kind] for kind in entries})

    def goes_on_with(self, record: Point | Event) -> bool:
        """Whether ``record`` belongs to a new attempt at a trial that ended without a training outcome."""
        return self.has_ended and self._outcome not in TRAINING_OUTCOMES and starts_attempt(record)

    def reopen(self) -> None:
        """Set the run to RUNNING again, without the outcome of the previous attempt."""
        stale = self._client.get_run(self.id).data.tags.keys() & OUTCOME_TAGS.values()
        for tag in sorted(stale):
            self._client.delete_tag(self.id, tag)
        withdraw_note(self._client, self.id)
        if names.OUTCOME in stale:
            self._client.set_tag(self.id, names.OUTCOME, str(Outcome.RUNNING))
        self._client.update_run(self.id, status="RUNNING", name=self._name)
        self.has_ended, self._outcome = False, None

    def end(self, event: Event) -> None:
        """Write an outcome and end the run with the matching status."""
        outcome = event.payload.get("outcome")
        tags = outcome_tags(event.payload)
        if self.has_ended:  # with another judgement
            there = self._client.get_run(self.id).data.tags.keys() & OUTCOME_TAGS.values()
            for stale in there - tags.keys():
                self._client.delete_tag(self.id, stale)
        for tag, text in tags.items():
            self._client.set_tag(self.id, tag, clean(text))
        if outcome is not None:
            self._client.update_run(self.id, name=f"{self._name} {outcome}")
        note_trial(self._client, self.id, event.payload)
        self._client.set_terminated(self.id, status_of(outcome), end_time=event.time_ms)
        self.has_ended, self._outcome = True, outcome

    def add_artifact(self, directory: Path, payload: Mapping[str, Any], *, only_if_lacking: bool) -> None:
        """Copy a file or folder of the trial's directory to the run's artifacts.

        With ``only_if_lacking`` it is not copied if the run has all its files with their sizes.

        Raises:
            JournalError: the path, or a link in the folder, leads out of the trial's directory or is not a regular
                file, or the target lies outside the run's artifacts.
        """
        path, to = _artifact(directory, payload["path"]), payload.get("artifact_path")
        if to and (to.startswith("/") or "\0" in to or ".." in to.split("/")):
            raise JournalError(
                f"artifact {payload['path'][:80]!r} would go to {to[:80]!r}, which lies outside the run's folder"
            )
        if only_if_lacking and self._has_artifact(path, to or None):
            return
        if path.is_dir():
            self._client.log_artifacts(self.id, str(path), to)
        elif path.exists():
            self._client.log_artifact(self.id, str(path), to)
        else:
            _log.warning("%s is gone and was not copied to MLflow", path)

    def _has_artifact(self, path: Path, to: str | None) -> bool:
        """Whether the run has all files of an artifact, with their sizes; True if the artifact is gone on disk."""
        if not path.exists():
            return True
        wanted = {each.name: each.stat().st_size for each in (path.iterdir() if path.is_dir() else [path])}
        found = {Path(each.path).name: each.file_size for each in self._client.list_artifacts(self.id, to)}
        return all(name in found and found[name] in (None, size) for name, size in wanted.items())

    def add_dataset(self, payload: Mapping[str, Any]) -> None:
        """Log a data set that the trial used."""
        name, digest, source = (clean(payload[field]) for field in ("name", "digest", "source"))
        dataset = Dataset(name, digest[:LONGEST_DIGEST], "local", source)
        context = InputTag("mlflow.data.context", payload.get("context", "train"))
        self._client.log_inputs(self.id, [DatasetInput(dataset, [context])])

    def compare(self, batch: Batch) -> tuple[Batch, list[str]]:
        """Return the part of a batch that the run lacks, and a message for each of its params and metrics that differs.

        Points are compared one by one, tags by name. Metrics and params that are not in the batch are ignored, since
        other programs may have logged them.
        """
        lacking, otherwise = Batch(self.names), []
        for name, value in batch.params.items():
            if (there := self.run.data.params.get(name, value)) != value:
                otherwise.append(f"param {name} is {there[:80]!r} in its run, {value[:80]!r} in its journal")
        lacking.params = {name: value for name, value in batch.params.items() if name not in self._params}
        lacking.tags = {name: value for name, value in batch.tags.items() if name not in self.run.data.tags}
        wanted: dict[str, list[Metric]] = {}
        for metric in batch.metrics:
            wanted.setdefault(metric.key, []).append(metric)
        for name, metrics in wanted.items():
            found = self._client.get_metric_history(self.id, name) if name in self.run.data.metrics else ()
            there = {(each.step, each.timestamp, each.value) for each in found}
            lacking.metrics += [each for each in metrics if (each.step, each.timestamp, each.value) not in there]
            if foreign := there - {(each.step, each.timestamp, each.value) for each in metrics}:
                step, _, value = min(foreign)
                such = f"such as {value:.6g} at step {step}"
                otherwise.append(f"{len(foreign)} points of {name} in its run are not in its journal, {such}")
        return lacking, otherwise

    def lacks_end(self, event: Event) -> bool:
        """Whether the run's status, outcome or name differs from what its journal's outcome event says."""
        outcome = event.payload.get("outcome")
        status = status_of(outcome)
        said = named_outcome(self.run.info.run_name, self._name)
        return bool(
            (self.run.info.status, self._outcome) != (status, outcome or self._outcome) or said not in (None, outcome)
        )

    def take_over_left_out(self) -> None:
        """Take over the run's messages about records that could not be sent earlier and are not retried."""
        for line in self.run.data.tags.get(names.LEFT_OUT, "").splitlines():
            if not (line.endswith(AGAIN) or _MORE.fullmatch(line)):
                self.names.leave_out(line)

    def say_left_out(self) -> None:
        """Write the messages about records that could not be sent to a tag of the run; remove it if there are none."""
        lines = list(self.names.left_out)
        if len(lines) > MOST_NAMED:
            lines[MOST_NAMED:] = [f"and {len(lines) - MOST_NAMED} more"]
        text, there = clean("\n".join(lines)), self.run.data.tags.get(names.LEFT_OUT, "")
        if text and text != there:
            self._client.set_tag(self.id, names.LEFT_OUT, text)
        elif there and not text:
            self._client.delete_tag(self.id, names.LEFT_OUT)


def _artifact(directory: Path, name: str) -> Path:
    """Resolve the path of an artifact within a trial's directory; raises as `TrialRun.add_artifact` does."""
    home = directory.resolve()
    try:
        path = (directory / name).resolve()
        for each in (path, *path.rglob("*")):
            if not each.resolve().is_relative_to(home):
                raise JournalError(f"artifact {name[:80]!r} lies outside the trial's directory")
            if each.exists() and not (each.is_file() or each.is_dir()):
                raise JournalError(f"artifact {name[:80]!r} is not a regular file, or holds one that is not")
    except (OSError, ValueError, RuntimeError) as error:  # a name that no file can have, or a loop of links
        if isinstance(error, OSError) and error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            raise
        raise JournalError(f"artifact {name[:80]!r} is not the path of a file: {error}"[:LONGEST_LINE]) from None
    return path


def _of_trial(trial_id: str) -> str:
    """MLflow filter for the run of a trial."""
    return f"tags.`{names.TRIAL_ID}` = '{trial_id}'"


def _is_of_an_entry(error: Exception) -> bool:
    """Whether an error may be due to one of the entries sent, rather than to the store or the run."""
    if isinstance(error, MlflowException):
        return error.error_code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
    return isinstance(error, ValueError | TypeError | OverflowError) and is_refusal(error)


def end_unwritten(store: Store, trial: TrialSpec, outcome: Outcome, reason: str) -> None:
    """End the run, if any, of a trial whose outcome can't be written to its journal, for example on a full disk.

    Raises:
        TrackingError: the store refuses it or does not answer.
    """
    with reported(store):
        experiment = experiment_id(store, trial.experiment)
        for run in store.client.search_runs([experiment], _of_trial(trial.trial_id), max_results=1):
            payload = outcome_payload(Judgement(outcome), reason)
            event = Event(time.time_ns() // 1_000_000, names.OUTCOME_EVENT, payload)
            TrialRun(store, run, trial.name).end(event)
