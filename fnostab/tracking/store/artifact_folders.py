"""Artifact folders of a SQLite store: beside the database, also after it was moved or copied.

MLflow keeps absolute paths in its database. A project that was moved or copied would continue to write to its old
folder.
"""

import shlex
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from fnostab.errors import TrackingError
from fnostab.tracking.store.database import TIMEOUT_S, sqlite_file
from fnostab.tracking.store.paging import every

ARTIFACTS = "mlruns"  # MLflow's own name


def new_artifact_location(uri: str, experiment: str) -> str | None:
    """Address for a new experiment's artifacts: beside a SQLite database; None if the server or MLflow chooses it."""
    database = sqlite_file(uri)
    return None if database is None else f"{(database.parent / ARTIFACTS).as_uri()}/{quote(experiment)}"


def earlier_folder(uri: str, experiment: Any) -> Path | None:
    """Folder in which the project was when ``experiment`` (an MLflow object) got the address of its artifacts.

    None if the project is still there, or if a user chose the address. A user chose it if it has another form, or if
    it exists, no artifacts are beside the database, and no database there holds the same experiment.
    """
    database = sqlite_file(uri)
    if database is None or not is_local_uri(experiment.artifact_location):
        return None
    home = Path(local_file_uri_to_path(experiment.artifact_location))
    named = Path(*filter(None, experiment.name.split("/")))  # a name as "a/b" is a folder within a folder
    below = named if home.parts[-len(named.parts) :] == named.parts else Path(home.name)
    artifacts = Path(*home.parts[: -len(below.parts)])
    folder = artifacts.parent
    if artifacts.name != ARTIFACTS or folder.resolve() == database.parent.resolve():
        return None
    is_here = (database.parent / ARTIFACTS / below).is_dir()
    if is_here or not folder.is_dir() or _holds(folder / database.name, database, experiment):
        return folder
    return None


def insist_on_place(uri: str, experiment: Any) -> None:
    """Raise a `TrackingError` if the artifacts of ``experiment`` would go to the project's old folder."""
    folder = earlier_folder(uri, experiment)
    if folder is not None:
        raise TrackingError(
            f"tracking database {sqlite_file(uri)} was moved or copied: artifacts of experiment {experiment.name!r} "
            f"would still go to {folder / ARTIFACTS}; `fnostab doctor --mend --tracking-uri {shlex.quote(uri)}` moves "
            "their addresses"
        )


def moved_experiments(uri: str, client: MlflowClient) -> dict[str, Path]:
    """Old folder of the project by experiment ID, for experiments with runs whose artifacts would go there."""
    moved = {
        str(each.experiment_id): earlier_folder(uri, each) for each in every(client.search_experiments, ViewType.ALL)
    }
    return {
        experiment: folder
        for experiment, folder in moved.items()
        if folder is not None and client.search_runs([experiment], run_view_type=ViewType.ALL, max_results=1)
    }


def _holds(other: Path, database: Path, experiment: Any) -> bool:
    """Whether ``other`` is another database that also holds ``experiment``: ``database`` is then a copy of it."""
    if not other.is_file() or other.samefile(database):
        return False
    same = "SELECT 1 FROM experiments WHERE experiment_id = ? AND name = ? AND creation_time = ?"
    values = int(experiment.experiment_id), experiment.name, experiment.creation_time
    try:
        with closing(sqlite3.connect(f"{other.as_uri()}?mode=ro", timeout=TIMEOUT_S, uri=True)) as connection:
            return connection.execute(same, values).fetchone() is not None
    except sqlite3.Error:  # not a database, or not MLflow's
        return False
