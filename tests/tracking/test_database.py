"""Databases of other versions of MLflow, and those that can't be written."""

import sqlite3

import pytest
import sqlalchemy
from alembic import command
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base

from fnostab.errors import TrackingError
from fnostab.serve.server import TrackingServer
from fnostab.serve.settings import ServerSettings
from fnostab.tracking import open_store

OLDER = "89d4b8295536"  # of 2019


def revision(path):
    with sqlite3.connect(path) as connection:
        return connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]


def test_an_older_database_is_not_changed_unasked(tmp_path):
    path = tmp_path / "old.db"
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    config = _get_alembic_config(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, OLDER)
    engine.dispose()
    for use in (open_store, lambda uri: TrackingServer(ServerSettings(tmp_path / "s", uri))):
        with pytest.raises(TrackingError, match=r"is older; .*take a copy of it, and run `mlflow db upgrade sqlite:"):
            use(f"sqlite:///{path}")
    assert revision(path) == OLDER


def test_a_newer_database_is_refused(store):
    path = store.uri.removeprefix("sqlite:///")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    with pytest.raises(TrackingError, match="a newer MLflow made it; `pip install --upgrade mlflow`"):
        open_store(store.uri)


def test_an_empty_database_is_filled(tmp_path):
    path = tmp_path / "new.db"
    open_store(f"sqlite:///{path}")
    assert revision(path)
