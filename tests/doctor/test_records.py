"""Doctor's findings on stores that are not as they should be, and its exit status."""

import http.server
import os
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from ports import unused_port

from fnostab.doctor import look, records, records_checks
from fnostab.tracking import Store, ui_command, wait_until_ready
from fnostab.tracking.store import health


def findings(uri):
    return dict(look(records_checks(uri, Path("out"))))


@pytest.fixture(scope="module")
def server(tmp_path_factory, empty_database):
    """A real MLflow server: its address."""
    port, folder = unused_port(), tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, folder / "mlflow.db")
    command, environment = ui_command(Store(f"sqlite:///{folder}/mlflow.db", None), port)
    process = subprocess.Popen(command, env=environment, cwd=folder, stderr=subprocess.DEVNULL)
    wait_until_ready(f"http://127.0.0.1:{port}", 120, process)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(60)


def test_a_server_that_is_well(server):
    found = findings(server)
    assert {name: each.state for name, each in found.items()} == dict.fromkeys(
        ("records", "schema", "artifacts", "clock", "writing", "journals"), "ok"
    )


def test_a_server_of_another_version(server, monkeypatch):
    monkeypatch.setitem(records.TESTED, "mlflow", "2.22.0")
    found = findings(server)["schema"]
    assert found.state == "warning"
    assert (
        "the tested version is 2.22.0: charts may be missing; on its machine `pip install 'mlflow==2.22.0'`"
        in found.text
    )


@pytest.mark.parametrize(("ahead_s", "state"), [(0, "ok"), (-60, "warning"), (3600, "failed")])
@pytest.mark.parametrize("answers_in_s", [0, 60])
def test_a_server_whose_clock_is_off(ahead_s, state, answers_in_s, monkeypatch):
    clock = iter([time.time(), time.time() + answers_in_s])
    monkeypatch.setattr(health, "time", SimpleNamespace(time=lambda: next(clock)))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def date_time_string(self, timestamp=None):
            return super().date_time_string(time.time() + ahead_s)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as skewed:
        threading.Thread(target=skewed.serve_forever, daemon=True).start()
        found = records._clock(Store(f"http://127.0.0.1:{skewed.server_port}", None))
        skewed.shutdown()
    assert found.state == state
    assert state == "ok" or "`timedatectl set-ntp true`" in found.text


def test_a_server_that_says_nothing_is_asked_again_and_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        found = findings(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert time.monotonic() - started < 90  # the limit of that check
    assert list(found) == ["records"]
    assert "is running, but has not answered within 1 s" in found["records"].text


def test_a_wrong_password(postgresql):
    user, _, rest = postgresql.partition("@")
    found = findings(f"{user}wrong@{rest}")
    assert list(found) == ["records"]
    assert "; correct the user or the password" in found["records"].text
    assert user.rpartition(":")[2] not in found["records"].text


def test_a_database_that_is_read_only(postgresql):
    assert {each.state for each in findings(postgresql).values()} == {"ok"}
    found = findings(f"{postgresql}?options=-c%20default_transaction_read_only%3Don")
    assert (found["records"].state, found["writing"].state) == ("ok", "failed")
    assert "read-only transaction; name the database that is written" in found["writing"].text


def test_a_database_of_another_schema(workplace):
    with sqlite3.connect("mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '75868b020152'")
    found = findings("sqlite:///mlflow.db")["records"]
    assert found.state == "failed"
    assert "`mlflow db upgrade sqlite:///" in found.text


def test_no_database_yet_is_no_fault(workplace):
    os.remove("mlflow.db")
    assert findings(None)["records"].state == "ok"
    assert not os.path.exists("mlflow.db")


def test_the_command_prints_a_line_a_check_and_its_status_tells_failures(call, workplace):
    status, out, _ = call("doctor")
    assert status == 0
    assert [line.split()[1] for line in out.splitlines()][:4] == ["python", "torch", "lightning", "mlflow"]
    assert {line.split()[0] for line in out.splitlines()} <= {"ok", "warning"}
    status, out, _ = call("doctor", "--tracking-uri", "http://127.0.0.1:1")
    assert status == 1
    assert out.splitlines()[-1].startswith("failed   records     no tracking server answers")
