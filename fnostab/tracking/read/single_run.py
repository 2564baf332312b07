"""Read from a single run its study's record, its outcome, and its last sign of life."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from fnostab.errors import LaunchError
from fnostab.record import names
from fnostab.record.folders import STUDY_FILE
from fnostab.record.outcomes import Outcome
from fnostab.record.trial import StudySpec

STATUS: Mapping[str | None, str] = {Outcome.OOM: "FAILED", Outcome.INFRA_ERROR: "FAILED", Outcome.KILLED: "KILLED"}


def read_spec(client: MlflowClient, study_run_id: str) -> StudySpec | None:
    """Read the record of a study from its parent run; None if that has no readable one."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return StudySpec.read(Path(client.download_artifacts(study_run_id, STUDY_FILE, folder)))
        except (MlflowException, OSError, LaunchError):
            return None


def status_of(outcome: str | None) -> str:
    """MLflow status of a run with an outcome: FINISHED, FAILED or KILLED."""
    return STATUS.get(outcome, "FINISHED")


def named_outcome(run_name: str, trial: str) -> str | None:
    """Outcome in a run's name, which is added at the run's end; None if it has not ended or was renamed."""
    outcome = run_name.removeprefix(f"{trial} ")
    return outcome if outcome != run_name and outcome in names.OUTCOMES else None


def last_sign_ms(run: Any) -> int:
    """Time of a run's newest metric, or of its start if there is none, in Unix milliseconds.

    This is in the results of `search_runs`, so no history is read.
    """
    signs: list[int] = [metric.timestamp for metric in run.data.to_proto().metrics]
    newest: int = max([run.info.start_time, *signs])
    return newest
