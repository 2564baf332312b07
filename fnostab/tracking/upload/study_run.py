"""Parent run of a study, and its link to the run that `mlflow run` created."""

import json
import logging
import os
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from fnostab.errors import TrackingError
from fnostab.record import names
from fnostab.record.attempt import this_process
from fnostab.record.folders import STUDY_FILE
from fnostab.record.settings import value_text
from fnostab.record.trial import StudySpec
from fnostab.tracking.environment import own_tags
from fnostab.tracking.pages.notes import as_tags, code, escaped, put_note, run_link
from fnostab.tracking.pages.run_notes import note_study
from fnostab.tracking.pages.views import install_views
from fnostab.tracking.read.histories import CLASSIC
from fnostab.tracking.read.single_run import read_spec
from fnostab.tracking.store.paging import of_kind
from fnostab.tracking.store.store import Store, experiment_id, find_or_make_run, reported

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # arms' colours, as in figures
MORE_COLOURS = ("#332288", "#882255", "#999933", "#44AA99", "#661100", "#777777")  # where a figure has dashed lines
RUN_COLOUR = "mlflow.runColor"
_log = logging.getLogger(__name__)


def ensure_study(store: Store, spec: StudySpec) -> str:
    """Find or create the study's parent run, and set it to RUNNING; return its ID.

    Raises:
        TrackingError: the store refuses it or does not answer.
    """
    with reported(store):
        run_id: str = find_or_make_study(store, spec).info.run_id
        store.client.set_tag(run_id, names.OWNER, this_process())
        put_note(store.client, run_id, escaped(spec.description))  # results are added at its end
        store.client.update_run(run_id, status="RUNNING")
        return run_id


def find_or_make_study(store: Store, spec: StudySpec, start_ms: int | None = None) -> Any:
    """Find or create the study's parent run; a new one starts at ``start_ms`` (Unix milliseconds; None: now).

    Views are installed on its experiment if this user may write them.
    """
    client = store.client
    experiment = experiment_id(store, spec.experiment)
    run = find_or_make_run(
        store,
        experiment,
        of_kind(names.KIND_STUDY, spec.hash),
        lambda: client.create_run(experiment, start_ms, _tags(spec), run_name=spec.name),
    )
    for name, value in _params(spec).items():
        if name not in run.data.params:
            client.log_param(run.info.run_id, name, value)
    earlier = read_spec(client, run.info.run_id)
    spec = spec if earlier is None else spec.extending(earlier)
    client.log_text(run.info.run_id, spec.model_dump_json(indent=2), STUDY_FILE)
    try:
        install_views(store, experiment)  # so that the server's page shows the charts
    except TrackingError as error:  # the user may lack permission; `fnostab ui` reports it
        _log.warning("experiment %s has no views: %s", spec.experiment, error)
    return run


def finish_study(store: Store, run_id: str, status: str = "FINISHED") -> None:
    """End a study's parent run with status FINISHED, FAILED or KILLED, and update its note.

    Raises:
        TrackingError: the store refuses it or does not answer.
    """
    with reported(store):
        note_study(store, run_id)
        store.client.set_terminated(run_id, status)


def link_project_run(store: Store, study_run_id: str) -> bool:
    """Link the run that `mlflow run` created and the study's run to each other.

    Returns:
        Whether MLFLOW_RUN_ID names a run of this store, rather than a deleted one, one of another store or none.

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
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # deleted
                return False
            raise
        study = store.client.get_run(study_run_id)
        experiment = store.client.get_experiment(study.info.experiment_id)
        store.client.set_tag(study_run_id, names.PROJECT_RUN, project_run_id)
        page = run_link(escaped(study.info.run_name), experiment.experiment_id, study_run_id)
        put_note(
            store.client,
            project_run_id,
            f"This run only started the study {page}. Its trials are in the experiment [{escaped(experiment.name)}]"
            f"(#/experiments/{experiment.experiment_id}/runs?{CLASSIC}), under that run.\n\n"
            f"{code('fnostab ui')} shows them with their charts, "
            f"{code(f'fnostab decide --experiment {experiment.name}')} judges them.\n",
        )
    return True


def colour_tags(client: MlflowClient, study_run_id: str | None, arm: str | None) -> dict[str, str]:
    """Tags that give a new run its arm's colour; none if its study or arm is not known."""
    spec = read_spec(client, study_run_id) if study_run_id else None
    if spec is None or arm is None or arm not in spec.arms:
        return {}
    colours = (*COLOURS, *MORE_COLOURS)
    return {RUN_COLOUR: colours[list(spec.arms).index(arm) % len(colours)]}


def _tags(spec: StudySpec) -> dict[str, str]:
    return own_tags(names.KIND_STUDY) | {
        names.STUDY: spec.name,
        names.STUDY_HASH: spec.hash,
        names.TASK: spec.task,
        **({names.PROFILE: spec.profile} if spec.profile else {}),
        names.SOURCE: f"fnostab run {spec.name}",
        names.CHARTS: json.dumps(
            {"judged": sorted(set(spec.judged.values())), "metric": [spec.metric.key], **vars(spec.charts)}
        ),
        **as_tags(escaped(spec.description)),
    }


def _params(spec: StudySpec) -> dict[str, str]:
    params: dict[str, Any] = {
        "control": spec.control,
        "arms": ", ".join(spec.arms),
        "task": spec.task,
        "metric": spec.metric.key,
        **({"profile": spec.profile} if spec.profile else {}),
    }
    params |= {f"role.{role}": arm for role, arm in spec.roles.items()}
    return {name: value_text(value) for name, value in params.items()}
