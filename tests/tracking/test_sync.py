import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from tracking_helpers import (
    DEAD,
    copy_database,
    journal_points,
    marked,
    only_trial,
    runs_of_kind,
    stored_points,
    write_trial,
)
from trial_records import trial_of

from fnostab.errors import JournalError
from fnostab.record import names
from fnostab.record.attempt import is_alive, this_process
from fnostab.record.journal import Journal, read_journal
from fnostab.record.lines import Point
from fnostab.tracking import Uploader, ensure_study, finish_study, sync

OWN_TAGS = ("mlflow.parentRunId", "mlflow.note.content", "fnostab.note")  # they name other runs


def rows(store):
    """All that a store says of trials, but for the ids that it chose itself."""
    runs = runs_of_kind(store, names.KIND_TRIAL)
    return sorted(
        (
            run.info.run_name,
            run.info.status,
            run.info.start_time,
            run.info.end_time,
            sorted((key, value) for key, value in run.data.tags.items() if key not in OWN_TAGS),
            sorted(run.data.params.items()),
            sorted(stored_points(store, run).items()),
        )
        for run in runs
    )


def test_a_new_store_equals_the_one_that_was_followed_live(make_store, study):
    live, fresh = make_store("live"), make_store("fresh")
    parent = ensure_study(live, study.spec)
    uploader = Uploader(live, parent)
    for arm, outcome in (("control", "collapsed"), ("agc", "converged")):
        directory = study.trial(arm)
        uploader.follow(directory)
        write_trial(directory, outcome=outcome, val_loss_best=0.1)
        uploader.poll()
    finish_study(live, parent)

    report = sync(study.folder.parent, fresh)
    assert (report.trials, report.points_sent, report.refused) == (2, 62, ())
    assert rows(fresh) == rows(live)
    (made,) = runs_of_kind(fresh, names.KIND_STUDY)
    (first,) = runs_of_kind(live, names.KIND_STUDY)
    assert made.data.params == first.data.params
    assert (made.info.status, made.data.tags[names.STUDY_HASH]) == ("FINISHED", "5eed")
    assert made.data.tags["mlflow.source.name"] == "fnostab run shootout"


def test_a_programs_run_says_how_it_was_started(store, study):
    directory = study.folder / "control-0"
    trial_of(study.spec, argv=("python", "train.py", "--note", "two words")).write(directory / "trial.json")
    write_trial(directory)
    sync(study.folder, store)
    assert only_trial(store).data.tags["mlflow.source.name"] == "python train.py --note 'two words'"


def test_a_second_call_sends_nothing(store, study):
    write_trial(study.trial())
    assert sync(study.folder, store).points_sent == 30
    assert sync(study.folder, store).points_sent == 0
    assert len(runs_of_kind(store, names.KIND_TRIAL)) == len(runs_of_kind(store, names.KIND_STUDY)) == 1


KILLED = """
import os
from fnostab.record import names
from fnostab.tracking import open_store, sync

store = open_store({uri!r})
log_batch = store.client.log_batch

def once(*arguments, **entries):
    log_batch(*arguments, **entries)
    if any(tag.key == names.SENT for tag in entries["tags"]):
        os.kill(os.getpid(), 9)

store.client.log_batch = once
sync({folder!r}, store)
"""


def test_a_call_that_is_killed_in_the_middle_loses_and_doubles_nothing(store, study, tmp_path):
    directory = study.trial()
    write_trial(directory, range(4000))
    program = KILLED.format(folder=str(study.folder), uri=store.uri)
    assert subprocess.run([sys.executable, "-c", program]).returncode == -signal.SIGKILL
    assert marked(tmp_path)
    assert 0 < sync(study.folder, store).points_sent < 4000
    assert stored_points(store, only_trial(store)) == journal_points(directory)


def test_a_store_that_was_lost_is_made_again_under_the_same_name(store, study, tmp_path, empty_database):
    directory = study.trial()
    write_trial(directory)
    sync(study.folder, store)
    copy_database(empty_database, tmp_path / "mlflow.db")
    assert sync(study.folder, store).points_sent == 30
    assert stored_points(store, only_trial(store)) == journal_points(directory)


def test_a_damaged_record_is_named_and_all_others_are_sent(store, study):
    damaged, _ = study.trial("agc"), write_trial(study.trial("control"))
    write_trial(damaged)
    content = (damaged / "journal.jsonl").read_bytes()
    (damaged / "journal.jsonl").write_bytes(content.replace(b'"s":0', b'"s":1'))
    report = sync(study.folder, store)
    assert (report.trials, report.points_sent) == (2, 59)
    (line,) = report.refused
    assert "agc-0: journal.jsonl is damaged at byte" in line


def test_a_trial_whose_process_died_is_closed_as_killed(store, study):
    directory = study.trial()
    write_trial(directory, outcome=None, owner=DEAD)
    sync(study.folder, store)
    run = only_trial(store)
    assert (run.info.status, run.data.tags[names.OUTCOME]) == ("KILLED", "killed")
    assert DEAD in run.data.tags[names.REASON]
    *_, (last, _) = read_journal(directory / "journal.jsonl")
    assert isinstance(last, Point)  # what is read may be a copy
    assert run.info.end_time == last.time_ms


def test_a_failure_that_was_announced_before_the_process_died_stays_one(store, study):
    directory = study.trial()
    write_trial(directory, outcome=None)
    with Journal(directory) as journal:
        journal.event(names.TAGS_EVENT, {names.OUTCOME: "nonfinite", names.FAILURE_STEP: "29"})
    sync(study.folder, store)
    run = only_trial(store)
    assert (run.info.status, run.data.tags[names.OUTCOME]) == ("FINISHED", "nonfinite")
    assert run.data.tags[names.FAILURE_STEP] == "29"


def test_a_value_that_is_not_finite_in_its_last_record_is_a_failure_too(store, study):
    directory = study.trial()
    write_trial(directory, outcome=None, owner=DEAD)
    with Journal(directory) as journal:
        journal.record(30, {names.TRAIN_LOSS: float("nan")})
    sync(study.folder, store)
    run = only_trial(store)
    assert (run.info.status, run.data.tags[names.OUTCOME]) == ("FINISHED", "nonfinite")
    assert (run.data.tags[names.FAILURE_STEP], run.data.tags[names.FAILURE_AFTER]) == ("30", "29")


def test_a_trial_that_is_at_work_is_left_running(store, study):
    write_trial(study.trial(), outcome=None, owner=this_process())
    sync(study.folder, store)
    assert only_trial(store).info.status == "RUNNING"
    assert runs_of_kind(store, names.KIND_STUDY)[0].info.status == "RUNNING"


def test_a_copy_within_the_folder_of_a_trial_does_not_part_it_from_its_siblings(store, study):
    write_trial(study.trial(seed=0))
    shutil.copytree(study.folder / "control-0", study.folder / "control-0" / "copies" / "control-0")
    write_trial(study.trial(seed=1), outcome=None, owner=this_process())
    sync(study.folder, store)
    assert runs_of_kind(store, names.KIND_STUDY)[0].info.status == "RUNNING"  # of its trials one is at work


def test_whether_an_owner_is_alive():
    now_ms = int(time.time() * 1000)
    assert is_alive(this_process(), now_ms)
    assert not is_alive(this_process(), since_ms=1000)  # its number went to a later process
    assert not is_alive(DEAD, now_ms)
    assert not is_alive(None)
    assert is_alive(f"{os.getpid()}@another-host", last_sign_s=time.time() - 60)
    assert not is_alive(f"{os.getpid()}@another-host", last_sign_s=time.time() - 3600)


def test_a_path_without_trials_is_an_error(store, tmp_path):
    with pytest.raises(JournalError, match="no trial found under"):
        sync(tmp_path, store)
