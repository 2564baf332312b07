import shutil

import pytest
from tracking_helpers import Server, StudyFolder

from fnostab.tracking import ensure_study, open_store


@pytest.fixture
def make_store(empty_database, tmp_path, monkeypatch):
    """A function that opens a new SQLite store called ``name`` in a directory of the test's own."""
    monkeypatch.chdir(tmp_path)  # where MLflow puts artifacts
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def make(name="mlflow"):
        shutil.copy(empty_database, tmp_path / f"{name}.db")
        return open_store(f"sqlite:///{name}.db")

    return make


@pytest.fixture
def store(make_store):
    return make_store()


@pytest.fixture
def study(tmp_path):
    return StudyFolder(tmp_path / "out")


@pytest.fixture
def make_study(tmp_path):
    return lambda **settings: StudyFolder(tmp_path / "out", **settings)


@pytest.fixture
def server(store, tmp_path):
    server = Server(store, tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def parent(store, study):
    return ensure_study(store, study.spec)
