"""`fnostab ui`: what it prints and how it ends, with a stand-in for the browser and the server's start."""

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fnostab.cli import serve
from fnostab.cli import ui as ui_command
from fnostab.cli.run import charts_line
from fnostab.record import names
from fnostab.serve.server import TrackingServer
from fnostab.serve.settings import ServerSettings
from fnostab.tracking import experiments_with_runs, install_views, open_store, view_addresses
from fnostab.tracking.pages.views import VIEWS


@pytest.fixture
def store(workplace):
    store = open_store()
    filled, _ = (store.client.create_experiment(name) for name in ("stage_a", "empty"))
    store.client.create_run(filled, tags={names.KIND: names.KIND_TRIAL})
    return store


@pytest.fixture
def ui(store, workplace, environment):
    """Start it as a user does; what it printed until it said how it ends."""
    started = []

    def start(*arguments, **more):
        command = [sys.executable, "-m", "fnostab", "ui", *arguments]
        out = open(workplace / "ui.txt", "w")  # noqa: SIM115
        process = subprocess.Popen(command, cwd=workplace, env=environment | more, stdout=out, stderr=out)
        started.append((process, out))
        deadline = time.monotonic() + 240
        while "Ctrl-C stops it" not in (text := (workplace / "ui.txt").read_text()) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return process, text

    yield start
    for process, out in started:
        process.terminate()
        process.wait(60)
        out.close()


def taken_port():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener, listener.getsockname()[1]


def test_it_prints_every_view_says_which_port_and_leaves_no_server(ui, store, call):
    listener, port = taken_port()
    with listener:
        process, text = ui("--port", str(port))
    assert f"port {port} is taken, using " in text
    first = next(line for line in text.splitlines() if line.startswith("http"))
    url = first.partition("/#/")[0]
    assert first.endswith(f"&workflowType=machine_learning&viewStateShareKey=fnostab-{VIEWS[0]}")
    assert text.count(first) == 1
    for view in VIEWS:
        assert f"&viewStateShareKey=fnostab-{view}" in text
    assert "empty" not in text

    status, out, _ = call("ui", "stage_a", "--tracking-uri", url)  # it is a running server
    assert status == 0
    assert f"{url}/#/experiments/" in out

    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert Path(re.search(r", log in (\S+\.log) \.\.\.", text)[1]).read_text()  # it is kept
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) != 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stage_z"], r"no experiment 'stage_z' in sqlite.*; there are: Default, empty, stage_a"),
        (["empty"], r"experiment 'empty' in sqlite.* holds no trials yet: `fnostab run`"),
        (["--tracking-uri", "http://127.0.0.1:9"], r"no tracking server answers at http://127.0.0.1:9"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(store, call, arguments, message):
    status, _, err = call("ui", *arguments)
    assert status == 2
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line)


@pytest.mark.parametrize(("opens", "desktop"), [(True, True), (False, True), (True, False)])
def test_the_newest_studys_charts_come_first_and_open_on_a_desktop(store, monkeypatch, capsys, opens, desktop):
    later = store.client.create_experiment("later")  # than stage_a, which has the newer study
    store.client.create_run(later, tags={names.KIND: names.KIND_TRIAL})
    found = experiments_with_runs(store)
    for start_ms, experiment in enumerate((later, found["stage_a"]), 1):
        store.client.create_run(experiment, start_ms, {names.KIND: names.KIND_STUDY})
    opened = []
    monkeypatch.setattr(ui_command.webbrowser, "open", opened.append)
    monkeypatch.setattr(ui_command, "_is_desktop", lambda: desktop)
    ui_command._show(store, "http://127.0.0.1:5000", experiments_with_runs(store), opens=opens)
    first, blank, name, *_ = capsys.readouterr().out.splitlines()
    assert f"/#/experiments/{found['stage_a']}/" in first
    assert (blank, name) == ("", "stage_a")
    assert opened == [first] * (opens and desktop)


def test_run_serve_and_the_experiments_note_lead_to_the_charts_that_it_opens(store, workplace):
    experiment = experiments_with_runs(store)["stage_a"]
    first = next(iter(view_addresses("http://127.0.0.1:5000", experiment, install_views(store, experiment)).values()))
    assert charts_line(store, experiment) == f"charts: {first}  (while `fnostab ui` runs)"
    server = TrackingServer(ServerSettings(folder=workplace / "server", backend=store.uri, port=5000))
    assert serve._charts(server) == first
    note = store.client.get_experiment(experiment).tags["mlflow.note.content"]
    assert f"(#/{first.partition('/#/')[2]})" in note.splitlines()[0]


def test_experiments_without_trials_are_left_alone(store):
    assert list(experiments_with_runs(store)) == ["stage_a"]
