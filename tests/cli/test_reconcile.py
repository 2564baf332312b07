"""`fnostab reconcile` after real trials of a real study died."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tracking_helpers import marked

from fnostab.record import names
from fnostab.record.journal import read_journal
from fnostab.record.lines import Event
from fnostab.tracking import find_experiment, open_store


def owner(directory):
    for record, _ in read_journal(directory / "journal.jsonl"):
        if isinstance(record, Event) and names.OWNER in record.payload:
            return int(record.payload[names.OWNER].split("@")[0])
    raise AssertionError(f"{directory} has no owner")


def statuses():
    store = open_store()
    runs = store.client.search_runs([find_experiment(store, "stage_a")])
    return {run.info.run_name: run.info.status for run in runs}


def test_launcher_and_trial_are_killed_and_the_study_goes_on(workplace, environment, tiny, call):
    longer = ["--set", "training.epochs=1000", "--set", "training.stress_test=true"]  # minutes: it is ended below
    shared = ["run", "stage_a", "--profile", "small", "--arms", "control", "--seeds", "1", *tiny, *longer]
    with open("out.txt", "w") as out:
        launcher = subprocess.Popen([sys.executable, "-m", "fnostab", *shared], env=environment, stdout=out, stderr=out)
    deadline = time.monotonic() + 120
    while not marked(workplace, "control-0"):
        assert launcher.poll() is None, Path("out.txt").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    launcher.kill()
    launcher.wait()
    (journal,) = workplace.glob("outputs/stage_a/*/*/journal.jsonl")
    os.kill(owner(journal.parent), signal.SIGKILL)
    assert statuses() == {"stage_a": "RUNNING", "control-0": "RUNNING"}

    status, out, err = call("reconcile", "stage_a")
    assert (status, err) == (0, "")
    assert "control-0  trial: killed" in out
    assert "stage_a  study: KILLED" in out
    assert "2 runs closed in sqlite:" in out
    assert statuses() == {"stage_a": "KILLED", "control-0 killed": "KILLED"}
    status, out, _ = call("reconcile")
    assert (status, out.startswith("0 runs closed in")) == (0, True)


def test_a_wrong_experiment_is_named(workplace, call):
    status, _, err = call("reconcile", "stage_z")
    assert (status, err.startswith("error: no experiment 'stage_z'")) == (2, True)
