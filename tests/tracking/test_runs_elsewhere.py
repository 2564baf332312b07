"""Runs whose journals are not at hand, and journals that can't take what they should."""

import time

import pytest
from tracking_helpers import DEAD, only_trial, runs_of_kind, write_trial

from fnostab.record import names
from fnostab.record.attempt import this_process
from fnostab.record.outcomes import Outcome
from fnostab.record.trial import TrialSpec
from fnostab.tracking import Uploader, end_unwritten, newest_study, runs_elsewhere, set_aside, trial_rows


@pytest.fixture
def sent(store, study, parent):
    """A function that records a trial and returns the time of its journal's first record."""

    def send(arm="control", seed=0, **attempt):
        directory = study.trial(arm, seed)
        write_trial(directory, **attempt)
        uploader = Uploader(store, parent)
        uploader.follow(directory)
        uploader.poll()
        (run,) = (run for run in runs_of_kind(store, names.KIND_TRIAL) if run.info.run_name.startswith(f"{arm}-{seed}"))
        return run.info.start_time

    return send


def test_a_run_is_elsewhere_if_the_journal_at_hand_did_not_make_it(store, study, sent):
    start = sent("control", 0, outcome="collapsed")
    assert runs_elsewhere(store, study.spec, {("control", 0): start}) == []
    assert runs_elsewhere(store, study.spec, {("control", 1): None}) == []
    for other in (None, start + 1):
        (run,) = runs_elsewhere(store, study.spec, {("control", 0): other})
        assert (run.arm, run.seed, run.outcome, run.running) == ("control", 0, Outcome.COLLAPSED, False)


def test_in_a_new_store_nothing_is_elsewhere(store, study):
    assert runs_elsewhere(store, study.spec, {("control", 0): None}) == []


@pytest.mark.parametrize(
    ("owner", "at_work"),
    [(this_process(), True), (DEAD, False), ("1@another-host", True)],
    ids=["alive", "dead", "another host"],
)
def test_whether_a_run_elsewhere_is_at_work(store, study, sent, owner, at_work):
    sent(outcome=None, owner=owner)
    (run,) = runs_elsewhere(store, study.spec, {("control", 0): None})
    assert (run.outcome, run.running, run.owner) == (None, at_work, owner)


def test_on_another_host_a_run_that_was_silent_for_long_is_not_at_work(store, study, sent, monkeypatch):
    sent(outcome=None, owner="1@another-host")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    (run,) = runs_elsewhere(store, study.spec, {("control", 0): None})
    assert not run.running


def test_what_is_set_aside_is_no_trial_any_more_and_makes_room_for_another(store, study, sent, parent):
    sent(outcome=None)
    aside = only_trial(store).info.run_id
    set_aside(store, aside)
    experiment = only_experiment(store)
    assert trial_rows(store, experiment, newest_study(store, experiment)) == []
    run = store.client.get_run(aside)
    assert (run.info.status, run.info.run_name) == ("KILLED", "control-0 set aside")

    (study.folder / "control-0" / "journal.jsonl").unlink()
    time.sleep(0.002)  # another journal begins in another millisecond
    sent(outcome="converged")
    assert only_trial(store).info.run_id != aside


def test_setting_aside_survives_a_crash_in_between(store, study, sent):
    sent(outcome="killed")
    run_id = only_trial(store).info.run_id
    store.client.delete_tag(run_id, names.TRIAL_ID)  # as far as the first call came
    (run,) = runs_elsewhere(store, study.spec, {("control", 0): None})
    set_aside(store, run.run_id)
    assert runs_of_kind(store, names.KIND_TRIAL) == []


def test_a_run_can_be_ended_without_its_journal(store, study, sent):
    sent(outcome=None)
    spec = TrialSpec.read(study.folder / "control-0" / "trial.json")
    end_unwritten(store, spec, Outcome.INFRA_ERROR, "No space left on device")
    run = only_trial(store)
    assert (run.info.status, run.data.tags[names.OUTCOME]) == ("FAILED", "infra_error")
    assert run.data.tags[names.REASON] == "No space left on device"
    end_unwritten(store, spec.model_copy(update={"seed": 9}), Outcome.KILLED, "it has no run")


def only_experiment(store):
    return store.client.get_experiment_by_name("stage_a").experiment_id
