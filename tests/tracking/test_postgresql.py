"""`fnostab serve` on a real PostgreSQL: what it holds, what it refuses, and what becomes of it when it is full."""

import shutil
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from tracking_helpers import StudyFolder, journal_points, only_trial, serving, stored_points, write_trial

from benchmarks.fault_places import small_disk
from benchmarks.load import load
from fnostab.errors import TrackingError
from fnostab.serve.server import TrackingServer
from fnostab.serve.settings import ServerSettings
from fnostab.tracking import Uploader, ensure_study, open_store, sync
from fnostab.tracking.pages.views import VIEWS

LEFT_BYTES = 500_000  # on the disk, which is enough for 5,000 points


def sql(address, *statements):
    with psycopg.connect(address, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def beside(address, database, user=None):
    """Address of another database of the same PostgreSQL, or of another user who has his name as his password."""
    parts = urlsplit(address)
    netloc = f"{user}:{user}@{parts.hostname}:{parts.port}" if user else parts.netloc
    return parts._replace(path=f"/{database}", netloc=netloc).geturl()


@pytest.fixture(scope="module")
def served(postgresql, tmp_path_factory, environment):
    """`fnostab serve` on a database: its address as users have it."""
    with serving(tmp_path_factory.mktemp("served"), environment, MLFLOW_BACKEND_STORE_URI=postgresql) as (_, port):
        yield f"http://127.0.0.1:{port}"


def test_eight_writers_at_full_rate_lose_and_double_nothing(served, postgresql, tmp_path):
    found = load(tmp_path, postgresql, served, writers=8, seconds=5)
    assert found.problems == []
    assert found.stored == found.recorded > 8000


def test_a_study_is_on_the_server_with_its_artifacts_and_views(served, tmp_path):
    study = StudyFolder(tmp_path / "out", experiment="views")  # other tests have a stage_a in this database
    store = open_store(served)
    uploader = Uploader(store, ensure_study(store, study.spec))
    directory = study.trial()
    uploader.follow(directory)
    write_trial(directory)
    uploader.drain(60)
    run = only_trial(store, "views")
    assert stored_points(store, run) == journal_points(directory)
    tags = store.client.get_experiment(run.info.experiment_id).tags
    assert all(f"mlflow.sharedViewState.fnostab-{name}" in tags for name in VIEWS)
    assert sync(study.folder, store).points_sent == 0


def test_a_disk_that_fills_under_the_database_delays_and_loses_nothing(served, postgresql, tmp_path):
    with psycopg.connect(postgresql) as connection:
        disk = Path(connection.execute("SHOW data_directory").fetchone()[0]).parent / "disk"
    with small_disk(disk, size_mib=64) as mounted:
        if not mounted:
            pytest.skip("only root can mount a small disk")
        shutil.chown(disk, "nobody")
        sql(postgresql, f"CREATE TABLESPACE small LOCATION '{disk}'", "ALTER TABLE metrics SET TABLESPACE small")
        study = StudyFolder(tmp_path / "out", experiment="full")
        directory = study.trial()
        write_trial(directory, steps=range(6000))
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(shutil.disk_usage(disk).free - LEFT_BYTES))
        store = open_store(served)
        with pytest.raises(TrackingError, match=r"HTTP 503\): its database may be full.*sync again to continue"):
            sync(study.folder, store)
        ballast.unlink()
        sync(study.folder, store)
        assert stored_points(store, only_trial(store, "full")) == journal_points(directory)
        sql(postgresql, "ALTER TABLE metrics SET TABLESPACE pg_default", "DROP TABLESPACE small")


@pytest.mark.parametrize(
    ("make", "database", "user", "words"),
    [
        ([], "mlflow", "nobody_known", "password authentication failed.*; correct the user or the password"),
        ([], "nowhere", None, 'database "nowhere" does not exist; make it'),
        (["CREATE DATABASE empty", "CREATE ROLE ada LOGIN PASSWORD 'ada'"], "empty", "ada",
         "permission denied for schema public; let its owner GRANT"),
        (["CREATE DATABASE copy", "ALTER DATABASE copy SET default_transaction_read_only = on"], "copy", None,
         "read-only transaction; name the database that is written"),
    ],
    ids=["wrong password", "no database", "no right", "read-only"],
)  # fmt: skip
def test_a_database_that_cannot_be_used_is_refused_with_what_to_do(postgresql, tmp_path, make, database, user, words):
    sql(postgresql, *make)
    address = beside(postgresql, database, user)
    with pytest.raises(TrackingError, match=words) as refusal:
        TrackingServer(ServerSettings(tmp_path / "s", address))
    assert urlsplit(address).password not in str(refusal.value).replace(urlsplit(address).username, "")
