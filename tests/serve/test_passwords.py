"""`fnostab serve` as a process: a real server with passwords, and how it ends."""

import base64
import json
import os
import signal
import stat
import urllib.error
import urllib.request

import psutil
import pytest
from tracking_helpers import StudyFolder, journal_points, only_trial, serving, stored_points, write_trial

from fnostab.errors import TrackingError
from fnostab.tracking import free_port, open_store, sync

PASSWORD = "Sesame, 9% of it: open/@once"


@pytest.fixture(scope="module")
def served(tmp_path_factory, environment):
    """A server with authentication: its process, port, folder, and what it prints."""
    pytest.importorskip("flask_wtf")
    folder = tmp_path_factory.mktemp("served")
    with serving(folder, environment, "--auth", MLFLOW_AUTH_ADMIN_PASSWORD=PASSWORD) as (process, port):
        yield process, port, folder


def status(port, host=None, password=None, origin=None, made=None):
    """HTTP status of a search for experiments, or of a request that makes one."""
    address = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/"
    request = urllib.request.Request(address + ("create" if made else "search?max_results=1"))
    if made:
        request.data = json.dumps({"name": made}).encode()
        request.add_header("Content-Type", "application/json")
    for name, value in (("Host", host), ("Origin", origin)):
        if value:
            request.add_header(name, value)
    if password:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"admin:{password}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_only_who_knows_the_password_is_answered(served, monkeypatch):
    _, port, _ = served
    assert status(port) == 401
    assert status(port, password="a wrong password") == 401
    assert status(port, password=PASSWORD) == 200
    assert status(port, password=PASSWORD, host="evil.example") == 403  # a page elsewhere gave its name this address
    with pytest.raises(TrackingError, match="refuses these credentials: set MLFLOW_TRACKING_USERNAME") as refusal:
        open_store(f"http://admin:not-it-at-all@127.0.0.1:{port}")
    assert "not-it" not in str(refusal.value)
    assert "MLFLOW_TRACKING_PASSWORD" not in os.environ


def test_pages_of_other_ports_of_this_machine_are_refused(served):
    """With the password, which a browser adds for whoever is logged in."""
    _, port, _ = served
    for other in ("localhost:9999", f"localhost:{port}", "127.0.0.1", "127.0.0.1:9999", "[::1]:9999"):
        assert status(port, password=PASSWORD, origin=f"http://{other}", made="of another page") == 403, other
        assert status(port, password=PASSWORD, origin=f"http://{other}") == 403  # nor may it read
    assert status(port, password=PASSWORD, origin="https://evil.example", made="of another page") == 403
    assert status(port, password=PASSWORD, origin=f"http://127.0.0.1:{port}", made="its own page's") == 200
    through_a_tunnel = {"host": "localhost:9000", "origin": "http://localhost:9000"}
    assert status(port, password=PASSWORD, **through_a_tunnel, made="through a tunnel") == 200
    assert status(port, password=PASSWORD, made="of a program") == 200


def test_a_journal_is_sent_with_the_password_and_its_artifacts_through_the_server(served, tmp_path, monkeypatch):
    _, port, folder = served
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    study = StudyFolder(tmp_path / "out")
    directory = study.trial()
    write_trial(directory)
    store = open_store(f"http://127.0.0.1:{port}")
    assert sync(study.folder, store).points_sent == 30
    assert stored_points(store, only_trial(store)) == journal_points(directory)
    assert list((folder / "mlflow-server" / "artifacts").rglob("study.json"))


def test_its_files_are_its_owners_and_hold_no_password(served):
    _, _, folder = served
    for name in ("auth.db", "auth.ini", "secret.key", "server.log", "mlflow.db"):
        assert stat.S_IMODE((folder / "mlflow-server" / name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE((folder / "mlflow-server").stat().st_mode) == 0o700
    for path in folder.rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path


def test_no_process_is_told_the_password(served):
    process, _, _ = served
    for child in psutil.Process(process.pid).children(recursive=True):
        assert PASSWORD not in " ".join(child.cmdline())
        assert PASSWORD not in child.environ().values()


def test_it_prints_what_users_need(served):
    _, port, folder = served
    printed = (folder / "printed.txt").read_text()
    assert f"export MLFLOW_TRACKING_URI=http://127.0.0.1:{port}\n" in printed
    assert "MLFLOW_TRACKING_USERNAME" in printed
    assert "Traceback" not in printed


def test_sigterm_ends_all_its_processes(served):
    process, port, folder = served
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 3  # mlflow, uvicorn, its workers
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert not psutil.wait_procs(children, timeout=60)[1]
    assert (folder / "printed.txt").read_text().endswith("ended\n")
    assert free_port(port) == port
