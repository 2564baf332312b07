"""`fnostab serve`: refused arguments, and the arguments that MLflow's server is started with."""

import importlib.util
import os
import socket
from pathlib import Path

import pytest

from fnostab.errors import TrackingError
from fnostab.serve import server
from fnostab.serve import settings as server_settings
from fnostab.serve.server import TrackingServer
from fnostab.serve.settings import ServerSettings
from fnostab.tracking.pages.ui import CLIENTS, server_environment


def refused(answer, text):
    status, _, err = answer
    assert status == 2
    *_, line = err.splitlines()
    assert line.startswith("error: ")
    assert text in line, line
    assert "Traceback" not in err


@pytest.fixture
def place(workplace, monkeypatch):
    for name in ("MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_BACKEND_STORE_URI"):
        monkeypatch.delenv(name, raising=False)
    return workplace


def test_a_port_that_is_taken(call, place):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        refused(call("serve", "--port", str(port)), f"can't listen on 127.0.0.1 port {port}: Address already in use")


def test_a_host_that_is_not_this_machines(call, place):
    refused(call("serve", "--host", "192.0.2.1"), "can't listen on 192.0.2.1 port 5000")


def test_a_folder_that_cannot_be_written(call, place):
    Path("taken").write_text("a file")
    refused(call("serve", "--folder", "taken/below"), "can't write the server's folder taken/below")
    refused(call("serve", "--artifacts-destination", "taken/below"), "can't keep artifacts in")


@pytest.mark.parametrize(
    ("backend", "text"),
    [
        ("ftp://somewhere", "accepted are http, https, sqlite, postgresql"),
        ("http://ada:s3cret@127.0.0.1:5000", "is an MLflow server, expected a database"),
        ("sqlite:///absent/mlflow.db", "no directory"),
        ("postgresql://ada:s3cret@127.0.0.1:1/mlflow", "postgresql://ada:***@127.0.0.1:1"),
        ("postgresql://ada:s3:cret/@127.0.0.1/mlflow", "postgresql://ada:***@127.0.0.1"),
    ],
)
def test_a_backend_that_is_none(call, place, backend, text):
    answer = call("serve", "--backend", backend)
    refused(answer, text)
    assert "s3" not in answer[2]


def test_the_extra_of_postgresql_is_named(call, place, monkeypatch):
    def missing(*_, **__):
        raise ModuleNotFoundError("No module named 'psycopg'", name="psycopg")

    monkeypatch.setattr("sqlalchemy.create_engine", missing)
    refused(call("serve", "--backend", "postgresql://ada@host/db"), "pip install 'fnostab[postgresql]'")


def test_the_extra_of_authentication_is_named(call, place, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    refused(call("serve", "--auth"), "pip install 'fnostab[auth]'")


@pytest.mark.skipif(importlib.util.find_spec("flask_wtf") is None, reason="needs the extra auth")
class TestTheFirstPassword:
    def test_it_must_be_given(self, call, place):
        refused(call("serve", "--auth"), "set MLFLOW_AUTH_ADMIN_PASSWORD")

    @pytest.mark.parametrize("password", ["", "short", "password1234"])
    def test_a_weak_or_published_one_is_refused_and_not_repeated(self, call, place, monkeypatch, password):
        monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", password)
        answer = call("serve", "--auth")
        refused(answer, "at least 12 characters")
        assert not password or password not in answer[2]


def test_names_are_names(call, place):
    refused(call("serve", "--allowed-hosts", "*"), "'*' is not accepted")


def test_an_open_server_is_warned_of(call, place):
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        answer = call("serve", "--host", "0.0.0.0", "--port", str(other.getsockname()[1]))
    refused(answer, "can't listen on 0.0.0.0")
    assert "everyone who reaches 0.0.0.0" in answer[2]
    assert "--auth" in answer[2]


def test_a_server_that_dies_says_why(place, monkeypatch):
    monkeypatch.setattr(server, "_command", lambda *_: ["sh", "-c", "echo OSError: no room for u:pw@h >&2; exit 3"])
    with (
        pytest.raises(TrackingError, match=r"ended with status 3: OSError: no room.*server.log"),
        TrackingServer(ServerSettings(Path("s"), port=5987)),
    ):
        pass


class TestCommand:
    def test_the_backends_password_is_on_no_command_line(self):
        uri = "postgresql://ada:s3cret@db/mlflow"
        settings = ServerSettings(Path("s"), backend=uri)
        assert not any("s3cret" in part for part in server._command(settings, "a"))
        assert server._environment(settings, uri)["MLFLOW_BACKEND_STORE_URI"] == uri

    def test_what_is_meant_for_clients_does_not_reach_it(self, monkeypatch):
        for name in CLIENTS:
            monkeypatch.setenv(name, "x")
        of_ui = server_environment("sqlite:///x")
        for environment in (server._environment(ServerSettings(Path("s")), "sqlite:///x"), of_ui):
            assert not environment.keys() & set(CLIENTS)

    def test_only_loopback_is_answered_by_default(self):
        settings = ServerSettings(Path("s"))
        assert set(server_settings.allowed_hosts(settings)) == {
            "localhost", "127.0.0.1", "[::1]", "localhost:*", "127.0.0.1:*", "[[]::1]:*",
        }  # fmt: skip
        assert server_settings.allowed_origins(settings) == []
        assert settings.url == settings.local_url == "http://127.0.0.1:5000"

    def test_a_name_of_its_own_is_answered_and_may_write_from_its_own_pages(self):
        settings = ServerSettings(Path("s"), host="0.0.0.0", port=7000, names=("mlflow.example.org",))
        hosts, origins = server_settings.allowed_hosts(settings), server_settings.allowed_origins(settings)
        assert {"mlflow.example.org", f"{socket.gethostname()}:7000"} <= set(hosts)
        assert {"https://mlflow.example.org", f"http://{socket.gethostname()}:7000"} <= set(origins)
        assert "*" not in hosts + origins
        assert settings.local_url == "http://127.0.0.1:7000"


def test_the_folder_is_its_owners(place):
    server.make_folder(Path("s"))
    assert os.stat("s").st_mode & 0o777 == 0o700
