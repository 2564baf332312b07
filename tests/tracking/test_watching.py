"""A running study, as its store tells it."""

import os
import socket

import pytest
from tracking_helpers import DEAD, Server, write_outcome, write_trial  # noqa: F401 - Server is the type of `server`

from fnostab.errors import TrackingError
from fnostab.record import names
from fnostab.record.journal import Journal
from fnostab.record.outcomes import Outcome
from fnostab.tracking import (
    StudyWatch,
    Uploader,
    ensure_study,
    existing_store,
    find_experiment,
    find_study,
    finish_study,
    newest_experiment,
    open_store,
)

ALIVE = f"{os.getpid()}@{socket.gethostname()}"


@pytest.fixture
def running(store, study):
    """Two trials that ended, one that is under way, and the journal of the latter."""
    study_run = ensure_study(store, study.spec)
    uploader = Uploader(store, study_run)
    write_trial(study.trial("control", 0), **{names.SPIKES: 2.0, names.LAST_STEP: 29.0})
    write_trial(study.trial("agc", 0), outcome="collapsed")
    directories = [study.trial("control", 0), study.trial("agc", 0), study.trial("control", 1)]
    journal = Journal(directories[-1])
    journal.event(names.TAGS_EVENT, {names.OWNER: ALIVE})
    journal.record(9, {names.TRAIN_LOSS: 0.5, names.GRAD_NORM: 3.0, names.GRAD_NORM_WINDOW_MAX: 7.0})
    journal.record(8, {names.SPIKE: 7.0})
    for directory in directories:
        uploader.follow(directory)
    uploader.poll()
    yield uploader, journal, study_run
    journal.close()


def watch_of(store, study, study_run):
    return StudyWatch(store, find_experiment(store, "stage_a"), study.spec.hash, study_run)


def by_name(watch):
    return {f"{trial.arm}-{trial.seed}": trial for trial in watch.poll()}


def test_trials_that_ended_and_one_under_way(store, study, running):
    watch = watch_of(store, study, running[2])
    trials = by_name(watch)
    assert {name: trial.outcome for name, trial in trials.items()} == {
        "control-0": Outcome.CONVERGED,
        "agc-0": Outcome.COLLAPSED,
        "control-1": None,
    }
    under_way = trials["control-1"]
    assert (under_way.running, under_way.step, under_way.loss, under_way.grad_norm) == (True, 9, 0.5, 3.0)
    assert (under_way.curve.columns(1), under_way.spikes) == ([7.0], 1)
    assert under_way.ended_s is None
    assert trials["control-0"].spikes == 2
    assert trials["control-0"].ended_s >= trials["control-0"].started_s
    assert watch.ended() is None


def test_a_server_tells_the_same_as_its_database(store, study, running, server, monkeypatch):
    expected = by_name(watch_of(store, study, running[2]))
    remote = open_store(server.url)
    watch = watch_of(remote, study, running[2])
    assert by_name(watch) == expected
    assert by_name(watch) == expected  # nothing is lost between two full readings
    server.kill()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError, match="no tracking server answers"):
        watch.poll()


def test_the_next_poll_sees_what_happened_and_asks_little(store, study, running, monkeypatch):
    uploader, journal, study_run = running
    watch = watch_of(store, study, study_run)
    watch.poll()
    watch._next_full_s = float("inf")  # only the short questions from here on
    asked = []

    def histories(store, run_ids, metric):
        asked.append(metric)
        return dict.fromkeys(run_ids, ([9, 19], [7.0, 11.0]))

    monkeypatch.setattr("fnostab.tracking.read.watching.metric_histories", histories)
    watch.poll()
    assert asked == []  # no history has grown
    journal.record(19, {names.GRAD_NORM: 4.0, names.GRAD_NORM_WINDOW_MAX: 11.0})
    uploader.poll()
    assert by_name(watch)["control-1"].curve.columns(2) == [7.0, 11.0]
    assert len(asked) == 1
    write_outcome(journal, "nonfinite", failure_step=17)
    uploader.poll()
    trial = by_name(watch)["control-1"]
    assert (trial.outcome, trial.failure_step, trial.running) == (Outcome.NONFINITE, 17, False)


def test_a_trial_and_a_study_whose_process_is_gone_do_not_run(store, study, running):
    watch = watch_of(store, study, running[2])
    experiment = find_experiment(store, "stage_a")
    (run,) = store.client.search_runs([experiment], "tags.seed = '1'")
    for run_id in (run.info.run_id, running[2]):
        store.client.set_tag(run_id, names.OWNER, DEAD)
    trial = by_name(watch)["control-1"]
    assert (trial.outcome, trial.running) == (None, False)
    assert watch.ended() == "gone"
    store.client.set_tag(running[2], names.OWNER, "1@another-host")  # which can't be looked up
    assert watch.ended() is None
    finish_study(store, running[2], "KILLED")
    assert watch.ended() == "KILLED"


def test_a_trial_that_was_set_aside_is_forgotten(store, study, running):
    watch = watch_of(store, study, running[2])
    run_id = by_name(watch)["agc-0"].run_id
    store.client.set_tag(run_id, names.KIND, names.KIND_SET_ASIDE)
    watch._next_full_s = 0.0
    assert set(by_name(watch)) == {"control-0", "control-1"}


def test_the_newest_experiment_is_the_one_whose_study_started_last(store, make_study):
    with pytest.raises(TrackingError, match=r"no study is recorded in .*mlflow.db: start one with `fnostab run"):
        newest_experiment(store)
    old = ensure_study(store, make_study(experiment="old").spec)
    ensure_study(store, make_study(experiment="new").spec)
    assert newest_experiment(store) == "new"
    assert find_study(store, "old", "5eed") == (find_experiment(store, "old"), old)
    assert find_study(store, "old", "0ther") is None
    assert find_study(store, "absent", "5eed") is None


def test_looking_makes_no_database(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(TrackingError, match=r"no tracking database at .*/mlflow.db: name it with --tracking-uri"):
        existing_store()
    assert list(tmp_path.iterdir()) == []
