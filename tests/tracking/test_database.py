"""Databases of other versions of MLflow, and those that can't be written."""

import errno
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy
from alembic import command
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base

from fnostab.errors import TrackingError
from fnostab.serve.server import TrackingServer
from fnostab.serve.settings import ServerSettings
from fnostab.tracking import open_store
from fnostab.tracking.store import database

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
        connection.execute(sqlalchemy.text("INSERT INTO experiments (experiment_id, name) VALUES (0, 'Default')"))
    engine.dispose()
    for use in (open_store, lambda uri: TrackingServer(ServerSettings(tmp_path / "s", uri))):
        with pytest.raises(TrackingError, match=r"is older; .*back it up, and run `mlflow db upgrade sqlite:"):
            use(f"sqlite:///{path}")
    assert revision(path) == OLDER


def test_a_newer_database_is_refused(store):
    path = store.uri.removeprefix("sqlite:///")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    with pytest.raises(TrackingError, match="a newer MLflow made it; `pip install --upgrade mlflow`"):
        open_store(store.uri)


def half_made(path):
    """A database as MLflow leaves it between two of its migrations."""
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM experiments")
        connection.execute("UPDATE alembic_version SET version_num = ?", (OLDER,))


def test_one_that_is_just_being_made_is_waited_for(store, caplog):
    path = store.uri.removeprefix("sqlite:///")
    newest = revision(path)
    half_made(path)

    def make_the_rest():
        while "waiting for another process" not in caplog.text:
            time.sleep(0.01)
        with sqlite3.connect(path, timeout=30) as connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", (newest,))

    maker = threading.Thread(target=make_the_rest, daemon=True)
    maker.start()
    open_store(store.uri)
    maker.join()
    assert "waiting for another process that creates the tables of sqlite:///" in caplog.text


def test_one_that_nobody_makes_any_more_is_called_so(store, monkeypatch):
    half_made(store.uri.removeprefix("sqlite:///"))
    monkeypatch.setattr(database, "STALLED_S", 0.5)
    with pytest.raises(TrackingError, match="is incomplete: if no process is creating it any more, delete it"):
        open_store(store.uri)


def test_two_processes_that_open_an_empty_database_make_it_once(tmp_path):
    program = "from fnostab.tracking import open_store; open_store('sqlite:///new.db')"
    both = [
        subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    waits = "waiting for another process that creates the tables of"  # what the second may say
    said = [process.communicate(timeout=240)[1] for process in both]
    assert all(line.startswith(waits) for text in said for line in text.splitlines())
    assert [process.returncode for process in both] == [0, 0]
    assert {path.name for path in tmp_path.iterdir()} == {"new.db"}


@pytest.mark.parametrize("wait_s", [0.3, 1.0])
def test_a_process_that_is_killed_while_it_makes_a_database_leaves_one_that_can_be_made(tmp_path, wait_s):
    program = "from fnostab.tracking import open_store; open_store('sqlite:///new.db')"
    making = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("new.db*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(wait_s)
    making.kill()
    making.wait()
    assert open_store(f"sqlite:///{tmp_path}/new.db").client.search_experiments()
    assert {path.name for path in tmp_path.iterdir()} == {"new.db"}


def test_a_process_that_is_killed_once_the_database_is_made_leaves_a_lock_that_goes(tmp_path):
    uri = f"sqlite:///{tmp_path}/new.db"
    open_store(uri)
    (tmp_path / "new.db.making.lock").touch()
    open_store(uri)
    assert {path.name for path in tmp_path.iterdir()} == {"new.db"}


def test_a_database_in_a_folder_that_is_only_read_can_be_read(store, monkeypatch):
    def refuse(path, *, missing_ok=False):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    assert open_store(store.uri).client.search_experiments()


@pytest.mark.parametrize("uri", ["sqlite://C:/x.db", "sqlite://home:mlflow.db"])
def test_an_address_with_two_slashes_is_refused(uri):
    with pytest.raises(TrackingError, match="a path follows three slashes"):
        open_store(uri)


def test_an_empty_database_is_filled(tmp_path):
    path = tmp_path / "new.db"
    open_store(f"sqlite:///{path}")
    assert revision(path)
