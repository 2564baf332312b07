"""Runs that are RUNNING although nobody is at work on them."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from tracking_helpers import (
    DEAD,
    journal_points,
    mark_of,
    marked,
    only_trial,
    runs_of_kind,
    stored_points,
    write_trial,
)

from fnostab.record import names
from fnostab.record.attempt import this_process
from fnostab.record.journal import Journal
from fnostab.tracking import Uploader, ensure_study, find_experiment, finish_study, reconcile

OUTPUT = "out"  # where the fixture `study` puts its folder


@pytest.fixture
def send(store, study, parent):
    """Records an attempt that has no outcome, and sends what there is of it."""

    def send(arm="control", **attempt):
        directory = study.trial(arm)
        write_trial(directory, **{"outcome": None} | attempt)
        uploader = Uploader(store, parent)
        uploader.follow(directory)
        uploader.poll()
        return directory

    return send


def announce_failure(directory):
    with Journal(directory) as journal:
        journal.event(names.TAGS_EVENT, {names.OUTCOME: "nonfinite", names.FAILURE_STEP: "29"})


def record_more(directory):
    with Journal(directory) as journal:
        journal.record(99, {"lr": 0.5})


def leave_error(directory):
    (directory / "stderr.log").write_text("Traceback (most recent call last):\nOSError: the disk melted\n\n")


def test_a_dead_trials_run_gets_its_outcome_and_the_rest_of_its_journal(store, send):
    directory = send()
    record_more(directory)
    report = reconcile(store, OUTPUT)
    (closed,) = report.closed
    assert (closed.name, closed.what, closed.outcome, closed.points_sent) == ("control-0", "trial", "killed", 1)
    assert (report.at_work, report.refused) == (1, ())  # the study is this process's
    run = only_trial(store)
    assert (run.info.status, run.info.run_name, run.data.tags[names.OUTCOME]) == (
        "KILLED",
        "control-0 killed",
        "killed",
    )
    assert stored_points(store, run) == journal_points(directory)
    assert reconcile(store, OUTPUT).closed == ()
    assert only_trial(store).to_dictionary() == run.to_dictionary()


@pytest.mark.parametrize(
    ("left", "outcome", "status"),
    [
        (announce_failure, "nonfinite", "FINISHED"),
        (leave_error, "infra_error", "FAILED"),
        (record_more, "killed", "KILLED"),
    ],
)
def test_the_outcome_is_what_the_process_left(store, send, left, outcome, status):
    left(send())
    (closed,) = reconcile(store, OUTPUT).closed
    assert (closed.outcome, only_trial(store).info.status) == (outcome, status)
    assert ("the disk melted" in closed.reason) == (left is leave_error)


def test_an_error_of_an_earlier_attempt_is_not_taken_for_this_ones(store, send):
    directory = send()
    leave_error(directory)
    os.utime(directory / "stderr.log", (1, 1))
    assert [run.outcome for run in reconcile(store, OUTPUT).closed] == ["killed"]


def test_an_outcome_that_was_written_and_not_sent_stands(store, send):
    directory = send()
    with Journal(directory) as journal:
        journal.event(names.OUTCOME_EVENT, {"outcome": "converged"})
    (closed,) = reconcile(store, OUTPUT).closed
    assert (closed.outcome, only_trial(store).info.status) == ("converged", "FINISHED")


def test_without_the_journal_tags_and_metrics_have_to_do(store, send):
    directory = send()
    send("agc")
    for tag, value in ((names.OUTCOME, "nonfinite"), (names.FAILURE_STEP, "29")):
        store.client.set_tag(only(store, "agc-0").info.run_id, tag, value)  # as the monitor announces it
    shutil.rmtree(directory.parent)
    run = only(store, "control-0")
    newest = max(time_ms for points in stored_points(store, run).values() for *_, time_ms in points)
    assert {r.name: r.outcome for r in reconcile(store, OUTPUT).closed} == {"control-0": "killed", "agc-0": "nonfinite"}
    run = only(store, "control-0")
    assert (run.info.status, run.info.end_time, run.info.run_name) == ("KILLED", newest, "control-0 killed")


def test_the_journal_of_an_arm_that_was_another_before_is_found_beside_the_earlier_ones(store, send, study):
    directory = send()
    with_hash = directory.with_name(f"control-0-{study.spec.config_hashes['control'][:8]}")
    directory.rename(with_hash)
    record_more(with_hash)
    write_trial(study.trial(), outcome="collapsed")  # the arm's journal before its settings were changed
    (closed,) = reconcile(store, OUTPUT).closed
    assert (closed.outcome, closed.points_sent) == ("killed", 1)
    assert stored_points(store, only_trial(store)) == journal_points(with_hash)


@pytest.mark.parametrize("with_journal", [True, False])
def test_what_is_at_work_is_left_alone(store, send, with_journal):
    directory = send(owner=this_process())
    if not with_journal:
        shutil.rmtree(directory.parent)
    assert (reconcile(store, OUTPUT).closed, only_trial(store).info.status) == ((), "RUNNING")


def test_a_journal_that_is_open_has_a_writer_whatever_its_owner_says(store, send):
    directory = send()
    with Journal(directory):
        assert reconcile(store, OUTPUT).closed == ()
    assert len(reconcile(store, OUTPUT).closed) == 1


@pytest.mark.parametrize("with_journal", [True, False])
def test_another_hosts_process_is_alive_for_a_quarter_of_an_hour(store, send, monkeypatch, with_journal):
    directory = send(owner="7@another-host")
    if not with_journal:
        shutil.rmtree(directory.parent)
    assert reconcile(store, OUTPUT).closed == ()
    later = time.time() + 1000
    monkeypatch.setattr(time, "time", lambda: later)
    assert [run.outcome for run in reconcile(store, OUTPUT).closed] == ["killed"]


def make_project_run(store, study_run, **tags):
    tags = {"mlflow.project.entryPoint": "shootout", names.STUDY_RUN: study_run} | tags
    run_id = store.client.create_run("0", tags=tags, run_name="quick-fox-1").info.run_id
    store.client.set_tag(study_run, names.PROJECT_RUN, run_id)
    return run_id


def test_a_study_goes_with_its_launcher_and_the_run_of_mlflow_run_with_it(store, study, parent, monkeypatch):
    project = make_project_run(store, parent)
    assert reconcile(store, OUTPUT).closed == ()
    store.client.set_tag(parent, names.OWNER, DEAD)
    monkeypatch.setenv("MLFLOW_RUN_ID", project)  # this process is at work for it
    assert [run.what for run in reconcile(store, OUTPUT).closed] == ["study"]
    monkeypatch.delenv("MLFLOW_RUN_ID")
    assert [run.what for run in reconcile(store, OUTPUT, "another").closed] == []
    (closed,) = reconcile(store, OUTPUT, "stage_a").closed
    assert (closed.what, closed.outcome, closed.run_id) == ("mlflow run", "KILLED", project)
    assert {store.client.get_run(run).info.status for run in (project, parent)} == {"KILLED"}
    assert reconcile(store, OUTPUT).closed == ()


def test_runs_of_others_are_never_touched(store, parent):
    experiment = find_experiment(store, "stage_a")
    finish_study(store, parent)
    store.client.set_tag(parent, names.OWNER, DEAD)
    mine = [store.client.create_run(experiment).info.run_id, store.client.create_run("0").info.run_id]
    mine.append(store.client.create_run("0", tags={names.STUDY_RUN: parent}).info.run_id)  # no run of `mlflow run`
    assert reconcile(store, OUTPUT).closed == ()
    assert {store.client.get_run(run).info.status for run in mine} == {"RUNNING"}


def test_a_damaged_journal_is_named_and_the_others_are_closed(store, send):
    damaged, _ = send("agc"), send("control")
    content = (damaged / "journal.jsonl").read_bytes()
    (damaged / "journal.jsonl").write_bytes(content.replace(b'"s":3', b'"s":4'))
    report = reconcile(store, OUTPUT)
    assert [run.name for run in report.closed] == ["control-0"]
    (line,) = report.refused
    assert "damaged" in line


LIVE = """
import os, sys, time
from fnostab.tracking import live_sink
with live_sink("mine", "first try", "sqlite:///mlflow.db") as sink:
    for step in range(20000):
        sink.record(step, {"lr": step / 2})
        if sys.argv[1] == "exit" and step == 10000:
            os._exit(3)
    time.sleep(60)
"""


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_a_script_that_dies_while_its_records_are_sent(store, tmp_path, how):
    """Real process, real store: whatever it had recorded is there at the end, once."""
    store.client.create_experiment("mine")
    process = subprocess.Popen([sys.executable, "-c", LIVE, how], cwd=tmp_path)
    if how == "kill":
        while not marked(tmp_path):
            assert process.poll() is None
            time.sleep(0.01)
        assert reconcile(store, OUTPUT).closed == ()
        process.kill()
    assert process.wait(60) == (-signal.SIGKILL if how == "kill" else 3)
    (directory,) = tmp_path.glob("fnostab_runs/mine/*")
    if not runs_of_kind(store, names.KIND_LIVE, "mine"):
        return  # it died before the store had heard of it: `sync` sends such a journal
    (closed,) = reconcile(store, OUTPUT).closed
    assert (closed.name, closed.what, closed.outcome) == ("first try", "live run", "killed")
    (run,) = runs_of_kind(store, names.KIND_LIVE, "mine")
    assert (run.info.status, run.info.run_name) == ("KILLED", "first try killed")
    assert stored_points(store, run) == journal_points(directory)
    assert str(process.pid) in closed.reason
    assert socket.gethostname() in closed.reason


def test_a_call_that_is_killed_in_the_middle_is_finished_by_the_next(store, study, tmp_path):
    directory = study.trial()
    parent = ensure_study(store, study.spec)
    write_trial(directory, [0], outcome=None)
    uploader = Uploader(store, parent)
    uploader.follow(directory)
    uploader.poll()
    before = mark_of(store)
    write_trial(directory, range(1, 8000), outcome=None)
    program = f"from fnostab.tracking import open_store, reconcile; reconcile(open_store({store.uri!r}), {OUTPUT!r})"
    process = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path)
    while mark_of(store) == before and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    process.wait()
    reconcile(store, OUTPUT)
    run = only_trial(store)
    assert (run.info.status, run.info.run_name) == ("KILLED", "control-0 killed")
    assert stored_points(store, run) == journal_points(directory)


def only(store, name):
    (run,) = (run for run in runs_of_kind(store, names.KIND_TRIAL) if run.info.run_name.startswith(name))
    return run
