"""Correct the artifact addresses in a SQLite database that was moved or copied with its project."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy
from mlflow.store.model_registry.dbmodels.models import SqlModelVersion
from mlflow.store.tracking.dbmodels.models import SqlExperiment, SqlLoggedModel, SqlRun
from mlflow.utils.file_utils import local_file_uri_to_path

from fnostab.errors import TrackingError
from fnostab.tracking.store.artifact_folders import ARTIFACTS, moved_experiments
from fnostab.tracking.store.database import connected, sqlite_file
from fnostab.tracking.store.store import Store, reported

ADDRESSES: tuple[Any, ...] = (
    SqlExperiment.artifact_location,
    SqlRun.artifact_uri,
    SqlLoggedModel.artifact_location,
    SqlModelVersion.source,
    SqlModelVersion.storage_location,
)


@dataclass(frozen=True)
class Moved:
    """Result of `move_addresses`.

    Attributes:
        folder: folder of the database, and from now on of the artifacts.
        addresses: number of different addresses that were changed.
        missing: number of runs whose artifacts exist at the old address only.
    """

    folder: Path
    addresses: int
    missing: int


def move_addresses(store: Store) -> Moved:
    """Change the addresses of artifacts that were beside the database to its present folder.

    No file is moved. Either all addresses change, or none.

    Raises:
        TrackingError: the store is not a SQLite file, or can't be written.
    """
    database = sqlite_file(store.uri)
    if database is None:
        raise TrackingError(f"{store.address} is not an SQLite file: its artifacts do not move with it")
    with reported(store):
        folders = set(moved_experiments(store.uri, store.client).values())
    addresses = missing = 0
    with connected(store.uri) as connection:
        for folder in folders:
            before = folder / ARTIFACTS
            for column in ADDRESSES:
                for prefix in (f"{before}/", f"{before.as_uri()}/"):
                    addresses += _move(connection, column, prefix, f"{(database.parent / ARTIFACTS).as_uri()}/")
            here = connection.scalars(sqlalchemy.select(SqlRun.artifact_uri)).all()
            missing += sum(_is_left(Path(local_file_uri_to_path(uri)), before, database.parent) for uri in here if uri)
        connection.commit()
    return Moved(database.parent, addresses, missing)


def _move(connection: sqlalchemy.Connection, column: Any, before: str, after: str) -> int:
    """Replace the prefix ``before`` of a column's addresses with ``after``; return how many were different."""
    had = sqlalchemy.func.substr(column, 1, len(before)) == before
    found = connection.scalars(sqlalchemy.select(column).where(had).distinct()).all()
    for old in found:
        rest = old[len(before) :]
        new = after + (rest if before.startswith("file:") else quote(rest))
        connection.execute(sqlalchemy.update(column.class_).where(column == old).values({column.key: new}))
    return len(found)


def _is_left(artifacts: Path, before: Path, folder: Path) -> bool:
    """Whether a run's artifacts, which belong in ``folder``, exist in ``before`` only."""
    here = folder / ARTIFACTS
    return artifacts.is_relative_to(here) and not artifacts.exists() and (before / artifacts.relative_to(here)).exists()
