"""With a real MLflow server in a process of its own."""

import json
import time
import urllib.error
import urllib.request

import pytest
from tracking_helpers import Server, journal_points, marked, only_trial, stored_points

from fnostab.errors import TrackingError
from fnostab.record import names
from fnostab.record.journal import Journal
from fnostab.tracking import (
    Uploader,
    ensure_study,
    find_experiment,
    free_port,
    newest_study,
    open_store,
    sync,
    trial_rows,
    ui_command,
)


def wait_for(condition, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_server_that_dies_and_comes_back_loses_and_doubles_nothing(server, study, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    remote = open_store(server.url)
    uploader = Uploader(remote, ensure_study(remote, study.spec))
    directory = study.trial()
    uploader.follow(directory)
    uploader.start(interval_s=0.02)
    with Journal(directory) as journal:

        def record(steps):
            for step in steps:
                journal.record(step, {"train/loss": 1.0 / (step + 1), "grad_norm/total": float(step)})

        record(range(5000))
        wait_for(lambda: marked(tmp_path))  # it is in the midst of sending
        server.kill()
        record(range(5000, 6000))
        wait_for(lambda: uploader.trouble is not None)
        assert "no tracking server answers" in uploader.trouble
        uploader.stop()
        with pytest.raises(TrackingError, match=r"1 of 1 trial is not fully sent.*`fnostab sync .*` sends"):
            uploader.drain(0.1)
        server.start()
        (directory / "truth.txt").write_text("flat")
        journal.event(names.ARTIFACT_EVENT, {"path": "truth.txt", "artifact_path": None})
        journal.event(names.OUTCOME_EVENT, {"outcome": "converged"})
    uploader.drain(60)
    run = only_trial(remote)
    assert run.info.status == "FINISHED"
    assert [a.path for a in remote.client.list_artifacts(run.info.run_id)] == ["truth.txt"]
    stored = stored_points(remote, run)
    assert stored == journal_points(directory)
    assert len(stored["train/loss"]) == 6000

    assert sync(study.folder, remote).points_sent == 0
    experiment = find_experiment(remote, "stage_a")
    (row,) = trial_rows(remote, experiment, newest_study(remote, experiment))
    assert row.run_id == run.info.run_id
    with pytest.raises(TrackingError, match="open it in a browser"):
        ui_command(remote, 5000)
    assert free_port(server.port) > server.port


def test_pages_of_other_ports_of_this_machine_are_refused_by_the_server_of_ui(server):
    def answered(origin):
        create = f"{server.url}/api/2.0/mlflow/experiments/create"
        said = {"Content-Type": "application/json", "Origin": origin}
        asked = urllib.request.Request(create, json.dumps({"name": origin}).encode(), said)
        try:
            return urllib.request.urlopen(asked, timeout=60).status
        except urllib.error.HTTPError as error:
            return error.code

    assert answered("http://localhost:9999") == answered("http://127.0.0.1:9999") == 403
    assert answered(server.url) == 200


def test_a_server_that_ends_at_once_is_not_waited_for(store, tmp_path):
    broken = Server(store, tmp_path)
    broken._command = [*broken._command, "--no-such-option"]
    before = time.monotonic()
    with pytest.raises(TrackingError, match="ended with status 2"):
        broken.start()
    assert time.monotonic() - before < 30
