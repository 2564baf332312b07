import http.server
import inspect
import socket
import subprocess
import sys
import threading
import time

import pytest

from fnostab import tracking
from fnostab.errors import TrackingError
from fnostab.tracking import open_store


def refused(uri):
    """The message with which a store is refused; it must be one line and come soon."""
    before = time.monotonic()
    with pytest.raises(TrackingError) as info:
        open_store(uri)
    assert time.monotonic() - before < 6
    message = str(info.value)
    assert "\n" not in message
    return message


@pytest.fixture
def answer():
    """A function that starts a web server which answers everything alike, and returns its address."""
    servers = []

    def start(status, body):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        servers.append(http.server.HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_every_public_name_is_there_however_it_is_reached():
    for name in tracking.__all__:
        getattr(tracking, name)
        assert not inspect.ismodule(getattr(tracking, name)), f"{name} is hidden by a module of the same name"


def test_by_default_a_database_in_the_working_directory(make_store, tmp_path):
    make_store()
    assert open_store().uri == f"sqlite:///{tmp_path}/mlflow.db"


def test_the_environment_names_the_store(make_store, monkeypatch):
    other = make_store("other")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    assert open_store().uri == other.uri


def test_an_unreachable_server_is_named_without_its_password():
    message = refused("http://ada:s3cret@127.0.0.1:9")
    assert "no tracking server answers at http://ada:***@127.0.0.1:9" in message
    assert "s3cret" not in message


def test_a_server_that_says_nothing_is_waited_for_as_long_as_its_client_is_told_to(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert "is running, but has not answered within 1 s" in refused(f"http://127.0.0.1:{silent.getsockname()[1]}")


@pytest.mark.parametrize(("status", "body"), [(404, b"not here"), (200, b"<html>welcome</html>")])
def test_a_web_page_is_no_tracking_server(answer, status, body):
    assert "is not an MLflow server" in refused(answer(status, body))


@pytest.mark.parametrize("body", [b"who are you?", b'{"error_code": "UNAUTHENTICATED", "message": "no"}'])
def test_refused_credentials_are_called_so(answer, body):
    assert "MLFLOW_TRACKING_USERNAME" in refused(answer(401, body))


def test_a_server_that_is_asked_too_often_is_not_called_absent(answer, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert "answers, but failed to handle the request (HTTP 429)" in refused(answer(429, b"not so fast"))


def test_a_missing_directory_is_not_made(tmp_path):
    assert f"no directory {tmp_path}/nowhere" in refused(f"sqlite:///{tmp_path}/nowhere/mlflow.db")
    assert not (tmp_path / "nowhere").exists()


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "notes.db").write_text("dear diary, " * 500)
    assert "file is not a database" in refused(f"sqlite:///{tmp_path}/notes.db")


def test_a_database_that_cannot_be_written():
    assert "/proc" in refused("sqlite:////proc/mlflow.db")


def test_a_database_server_that_is_not_there():
    message = refused("postgresql://ada:s3cret@127.0.0.1:1/mlflow")
    assert "postgresql://ada:***@127.0.0.1:1" in message
    assert "s3cret" not in message


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns", "databricks", "ftp://somewhere"])
def test_other_stores_are_refused_with_those_that_are_accepted(uri):
    assert "accepted: http, https, sqlite" in refused(uri)


def test_the_terminal_stays_empty_and_telemetry_off(tmp_path):
    program = (
        "from fnostab.tracking import open_store, find_experiment\n"
        "store = open_store()\n"
        "run = store.client.create_run('0')\n"
        "store.client.set_terminated(run.info.run_id)\n"
        "import mlflow.telemetry.client as telemetry\n"
        "assert telemetry.get_telemetry_client() is None\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
