"""The parent run of a study, and its link with the run that `mlflow run` made for itself."""

import os
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from fnostab import __version__, names
from fnostab.tracking.attempt import this_process
from fnostab.tracking.batch import as_text
from fnostab.tracking.store import Store, experiment_id, reported
from fnostab.trial import StudySpec

__all__ = [
    "NOTE",
    "STUDY_FILE",
    "ensure_study",
    "find_or_make_study",
    "finish_study",
    "link_project_run",
    "log_study_artifact",
]

STUDY_FILE = "study.json"
NOTE = "mlflow.note.content"  # shown as Markdown on the run's page


def ensure_study(store: Store, spec: StudySpec) -> str:
    """Find the study's parent run or make it, and set it running; return its id.

    Raises:
        TrackingError: the store does not take it.
    """
    with reported(store):
        run_id: str = find_or_make_study(store, spec).info.run_id
        store.client.set_tag(run_id, names.OWNER, this_process())
        store.client.update_run(run_id, status="RUNNING")
        return run_id


def find_or_make_study(store: Store, spec: StudySpec, start_ms: int | None = None) -> Any:
    """The study's parent run; a new one has started at ``start_ms`` (Unix milliseconds; None: now)."""
    client = store.client
    experiment = experiment_id(store, spec.experiment)
    same_study = f"tags.`{names.STUDY_HASH}` = '{spec.hash}' AND tags.`{names.KIND}` = '{names.KIND_STUDY}'"
    found = client.search_runs([experiment], same_study, max_results=1)
    run = found[0] if found else client.create_run(experiment, start_ms, _tags(spec), run_name=spec.name)
    for name, value in _params(spec).items():
        if name not in run.data.params:
            client.log_param(run.info.run_id, name, value)
    client.log_text(run.info.run_id, spec.model_dump_json(indent=2), STUDY_FILE)
    return run


def finish_study(store: Store, run_id: str, status: str = "FINISHED") -> None:
    """End a study's parent run: FINISHED, FAILED or KILLED.

    Raises:
        TrackingError: the store does not take it.
    """
    with reported(store):
        store.client.set_terminated(run_id, status)


def log_study_artifact(store: Store, run_id: str, path: Path) -> None:
    """Copy a file to the artifacts of a study's run.

    Raises:
        TrackingError: the store does not take it.
    """
    with reported(store):
        store.client.log_artifact(run_id, str(path))


def link_project_run(store: Store, study_run_id: str) -> bool:
    """Let the run that `mlflow run` made and the study point at each other.

    Returns:
        Whether there is such a run: MLFLOW_RUN_ID names it, and it may be in another store.

    Raises:
        TrackingError: the store does not answer.
    """
    project_run_id = os.environ.get("MLFLOW_RUN_ID")
    if not project_run_id:
        return False
    with reported(store):
        try:
            store.client.set_tag(project_run_id, names.STUDY_RUN, study_run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        study = store.client.get_run(study_run_id)
        experiment = store.client.get_experiment(study.info.experiment_id)
        store.client.set_tag(study_run_id, names.PROJECT_RUN, project_run_id)
        store.client.set_tag(
            project_run_id,
            NOTE,
            f"This run only started the study **{study.info.run_name}**. Its trials are in the experiment "
            f"[{experiment.name}](#/experiments/{experiment.experiment_id}), under the run "
            f"[{study.info.run_name}](#/experiments/{experiment.experiment_id}/runs/{study_run_id}).\n\n"
            f"    fnostab ui\n    fnostab decide --experiment {experiment.name}\n",
        )
    return True


def _tags(spec: StudySpec) -> dict[str, str]:
    return {
        names.KIND: names.KIND_STUDY,
        names.STUDY: spec.name,
        names.STUDY_HASH: spec.hash,
        names.PROFILE: spec.profile,
        names.SCHEMA_TAG: names.SCHEMA,
        names.VERSION: __version__,
        NOTE: spec.description,
    }


def _params(spec: StudySpec) -> dict[str, str]:
    params: dict[str, Any] = {
        "control": spec.control,
        "arms": ", ".join(spec.arms),
        "primary_metric": spec.primary_metric,
        "profile": spec.profile,
        "depth": spec.depth,
    }
    return {name: as_text(value) for name, value in (params | {f"role.{k}": v for k, v in spec.roles.items()}).items()}
