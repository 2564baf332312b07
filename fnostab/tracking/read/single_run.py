"""Facts that a single run holds of its study or trial: the study's record, the outcome, the last sign of life."""

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

__all__ = ["last_sign_ms", "named_outcome", "read_spec", "status_of"]

STATUS: Mapping[str | None, str] = {Outcome.OOM: "FAILED", Outcome.INFRA_ERROR: "FAILED", Outcome.KILLED: "KILLED"}


def read_spec(client: MlflowClient, study_run_id: str) -> StudySpec | None:
    """The study that a parent run belongs to; None if it has no readable record."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return StudySpec.read(Path(client.download_artifacts(study_run_id, STUDY_FILE, folder)))
        except (MlflowException, OSError, LaunchError):
            return None


def status_of(outcome: str | None) -> str:
    """The status that a run gets with an outcome: FINISHED, FAILED or KILLED."""
    return STATUS.get(outcome, "FINISHED")


def named_outcome(run_name: str, trial: str) -> str | None:
    """The outcome that a run's name says since its end was recorded; None of a run at work, or that was renamed."""
    outcome = run_name.removeprefix(f"{trial} ")
    return outcome if outcome != run_name and outcome in names.OUTCOMES else None


def last_sign_ms(run: Any) -> int:
    """Time of the newest metric of a run's trial, or of its start (Unix milliseconds).

    It is in what `search_runs` gives, so that no history need be read.
    """
    signs: list[int] = [metric.timestamp for metric in run.data.to_proto().metrics]
    newest: int = max([run.info.start_time, *signs])
    return newest
