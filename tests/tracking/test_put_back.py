"""Stores that were put back from a backup, and journals that are copies: the journal decides, and is only read."""

import os
import shutil
import sqlite3
import time
from contextlib import closing

import pytest
from tracking_helpers import (
    DEAD,
    copy_database,
    journal_points,
    mark_of,
    only_trial,
    runs_of_kind,
    stored_points,
    write_outcome,
    write_trial,
)
from trial_records import trial_of

from fnostab.record import names
from fnostab.record.attempt import QUIET_S, this_process
from fnostab.record.ending import close_if_abandoned
from fnostab.record.journal import Journal, read_journal
from fnostab.record.outcome_rules import OutcomeRules
from fnostab.tracking import Uploader, ensure_study, open_store, reconcile, sync

ELSEWHERE = "77@another-host"


@pytest.fixture
def uploader(store, parent):
    return Uploader(store, parent)


@pytest.fixture
def put_back(store, study, uploader, tmp_path):
    """A trial that was sent to its end, and a store that was then put back to the middle of it."""
    directory = study.trial()
    write_trial(directory, range(1300), outcome=None)
    uploader.follow(directory)
    uploader.poll()
    copy_database(tmp_path / "mlflow.db", tmp_path / "backup.db")
    write_trial(directory, range(1300, 2000))
    uploader.poll()
    assert stored_points(store, only_trial(store)) == journal_points(directory)
    copy_database(tmp_path / "backup.db", tmp_path / "mlflow.db")
    assert len(stored_points(store, only_trial(store))["lr"]) == 1300
    return directory


@pytest.fixture
def pass_time(monkeypatch):
    """A function after which a quarter of an hour has passed since every record and file."""
    later = time.time() + QUIET_S + 60
    return lambda: monkeypatch.setattr(time, "time", lambda: later)


def is_whole(store, directory):
    run = only_trial(store)
    assert (run.info.status, run.data.tags[names.OUTCOME]) == ("FINISHED", "converged")
    assert stored_points(store, run) == journal_points(directory)
    return True


def everything_below(folder):
    """Each file below a folder, with its bytes."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_sync_asks_the_store_what_it_has(store, study, put_back):
    assert sync(study.folder, store).points_sent == 700
    assert is_whole(store, put_back)
    assert sync(study.folder, store).points_sent == 0


def test_an_uploader_that_goes_on_notices_that_the_store_is_another(store, put_back, uploader):
    with Journal(put_back) as journal:
        journal.record(5000, {"lr": 0.5})
    assert uploader.poll() == 701
    assert is_whole(store, put_back)


def test_an_uploader_goes_on_in_a_database_that_was_moved_into_the_place_of_its_own(store, study, uploader, tmp_path):
    directory = study.trial()
    write_trial(directory, range(300), outcome=None)
    uploader.follow(directory)
    uploader.poll()
    copy_database(tmp_path / "mlflow.db", tmp_path / "backup.db")
    write_trial(directory, range(300, 500))
    uploader.poll()
    (tmp_path / "backup.db").replace(tmp_path / "mlflow.db")  # the connections so far lead to a file without a name
    with Journal(directory) as journal:
        journal.record(5000, {"lr": 0.5})
    assert uploader.poll() == 201
    assert is_whole(store, directory)
    assert is_whole(open_store(f"sqlite:///{tmp_path}/mlflow.db"), directory)


def test_reconcile_closes_the_run_with_all_its_points(store, put_back, tmp_path):
    (closed,) = (run for run in reconcile(store, "out").closed if run.what == "trial")
    assert (closed.outcome, closed.points_sent) == ("converged", 700)
    assert is_whole(store, put_back)


def test_reconcile_compares_the_points_of_what_it_closes(store, study, uploader, tmp_path):
    directory = study.trial()
    write_trial(directory, range(100), outcome=None)
    uploader.follow(directory)
    uploader.poll()
    assert lose_points(tmp_path) > 0
    (closed,) = (run for run in reconcile(store, "out").closed if run.what == "trial")
    assert closed.points_sent == 50
    assert stored_points(store, only_trial(store)) == journal_points(directory)


def lose_points(folder):
    """Delete half of a store's points and keep its marks, as a standby would that lags behind in one table."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection, connection:
        return connection.execute("DELETE FROM metrics WHERE step >= 50").rowcount


def test_verify_compares_all_and_repairs(store, study, call, tmp_path):
    directory = study.trial()
    (directory / "artifacts").mkdir()
    (directory / "artifacts" / "field.txt").write_text("flat")
    with Journal(directory) as journal:
        journal.event(names.ARTIFACT_EVENT, {"path": "artifacts/field.txt", "artifact_path": "images"})
    write_trial(directory, range(100))
    sync(study.folder, store)
    run = only_trial(store)
    lose_points(tmp_path)
    (copy,) = tmp_path.glob("mlruns/**/images/field.txt")
    copy.write_text("fl")
    store.client.set_tag(run.info.run_id, names.OUTCOME, "collapsed")
    assert sync(study.folder, store).points_sent == 0  # the mark says that all is there

    status, out, err = call("sync", str(study.folder), "--verify", "--tracking-uri", store.uri)
    assert (status, err) == (0, "")
    assert "1 trial, 50 points sent" in out
    assert out.endswith("every point was compared\n")
    assert is_whole(store, directory)
    assert copy.read_text() == "flat"
    assert sync(study.folder, store, verify=True).points_sent == 0


def test_verify_names_what_no_trial_recorded(store, study, call):
    directory = study.trial()
    write_trial(directory, range(100))
    sync(study.folder, store)
    run = only_trial(store).info.run_id
    store.client.log_metric(run, names.TRAIN_LOSS, 0.5, step=7)
    store.client.log_metric(run, "of_mine", 1.0)  # the journal knows no such metric: it is nobody's business
    verify = "sync", str(study.folder), "--verify", "--tracking-uri", store.uri
    status, out, err = call(*verify)
    said = f"1 points of {names.TRAIN_LOSS} in its run are not in its journal, such as 0.5 at step 7"
    assert (status, err) == (2, f"not as recorded: {directory}: {said}\n")
    assert "1 trial already in" in out
    assert call(*verify[:2], *verify[3:])[0] == 0  # only when asked


def test_doctor_finds_a_store_that_lacks_records(store, study, put_back, call, tmp_path):
    os.utime(put_back / "journal.jsonl", (1, 1))  # nobody writes it
    arguments = "doctor", "--output", "out", "--tracking-uri", store.uri
    status, out, _ = call(*arguments)
    (line,) = (line for line in out.splitlines() if "journals" in line.split()[1])
    assert (status, line.split()[0]) == (1, "failed")
    assert line.endswith("lacks records of 1 of 1 trial in out, as control-0: `fnostab sync out` sends them")
    sync(study.folder, store)
    assert any(line.startswith("ok       journals") for line in call(*arguments)[1].splitlines())


def test_a_run_goes_back_below_a_study_that_was_made_again(store, study, put_back, tmp_path):
    (lost,) = runs_of_kind(store, names.KIND_STUDY)
    store.client.delete_run(lost.info.run_id)
    sync(study.folder, store)
    (made,) = runs_of_kind(store, names.KIND_STUDY)
    assert only_trial(store).data.tags["mlflow.parentRunId"] == made.info.run_id != lost.info.run_id


def test_tags_by_which_a_trial_is_known_are_put_right(store, study):
    write_trial(study.trial())
    sync(study.folder, store)
    run = only_trial(store)
    for tag in (names.STUDY_HASH, names.ARM, names.SEED, names.CONFIG_HASH):
        store.client.set_tag(run.info.run_id, tag, "7")
    store.client.delete_tag(run.info.run_id, names.KIND)
    sync(study.folder, store)
    assert only_trial(store).data.tags == run.data.tags


def test_a_newer_copy_of_a_journal_goes_on(store, study):
    directory = study.trial()
    write_trial(directory, range(10), outcome=None)
    earlier = (directory / "journal.jsonl").read_bytes()
    with Journal(directory) as journal:
        write_outcome(journal, "killed")  # as releases before this one did in a copy
    sync(study.folder, store)
    (directory / "journal.jsonl").write_bytes(earlier)  # and then the newer one is copied over it
    write_trial(directory, range(10, 20))
    assert sync(study.folder, store).refused == ()
    assert is_whole(store, directory)


@pytest.mark.parametrize("lost", [False, True])
def test_an_older_copy_takes_nothing_back(store, study, tmp_path, pass_time, lost):
    directory = study.trial()
    write_trial(directory, range(60), outcome=None, owner=ELSEWHERE)
    shutil.copytree(study.folder, tmp_path / "copy")
    write_trial(directory, range(60, 100))
    sync(study.folder, store)
    lost_points = lose_points(tmp_path) if lost else 0
    before = everything_below(tmp_path / "copy")
    pass_time()
    report = sync(tmp_path / "copy", store)
    assert (report.refused, report.points_sent) == ((), 10 if lost_points else 0)
    assert everything_below(tmp_path / "copy") == before
    assert only_trial(store).info.status == "FINISHED"
    assert sync(study.folder, store, verify=True).points_sent == (40 if lost else 0)
    assert is_whole(store, directory)


def test_a_copy_of_a_study_that_runs_elsewhere_is_only_read(store, study, tmp_path, pass_time):
    parent = ensure_study(store, study.spec)
    store.client.set_tag(parent, names.OWNER, "76@another-host")
    directory = study.trial()
    write_trial(directory, range(60), outcome=None, owner=ELSEWHERE)
    copy = tmp_path / "copy"
    shutil.copytree(study.folder.parent.parent, copy)
    before = everything_below(copy)
    sync(copy, store)  # it was copied just now: its owner counts as alive
    assert [only_trial(store).info.status, store.client.get_run(parent).info.status] == ["RUNNING", "RUNNING"]

    pass_time()
    assert sync(copy, store).points_sent == 0
    run = only_trial(store)
    assert (run.info.status, run.data.tags[names.OUTCOME]) == ("KILLED", "killed")
    assert ELSEWHERE in run.data.tags[names.REASON]
    assert everything_below(copy) == before

    original = Uploader(store, parent)  # which then has a network again
    write_trial(directory, range(60, 100))
    original.follow(directory)
    assert original.poll() == 40
    run = only_trial(store)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "control-0 converged")
    assert stored_points(store, run) == journal_points(directory)


@pytest.mark.parametrize(("owner", "written"), [(ELSEWHERE, False), (DEAD, True)])
def test_reconcile_writes_into_no_journal_of_another_host(store, study, uploader, pass_time, owner, written):
    directory = study.trial()
    write_trial(directory, range(10), outcome=None, owner=owner)
    uploader.follow(directory)
    uploader.poll()
    pass_time()
    before = everything_below(directory)
    (closed,) = (run for run in reconcile(store, "out").closed if run.what == "trial")
    assert (closed.outcome, only_trial(store).info.status) == ("killed", "KILLED")
    assert (everything_below(directory) != before) == written
    *_, (last, _) = read_journal(directory / "journal.jsonl")
    assert only_trial(store).info.end_time == last.time_ms


def test_sync_leaves_every_byte_of_what_it_reads(store, study):
    write_trial(study.trial("control", 0))
    write_trial(study.trial("control", 1), outcome=None)
    write_trial(study.trial("agc", 0), outcome=None, owner=this_process())
    with open(study.folder / "control-1" / "journal.jsonl", "ab") as journal:
        journal.write(b'0badc0de {"t":1,')  # torn
    before = everything_below(study.folder)
    for verify in (False, True):
        sync(study.folder, store, verify=verify)
    assert everything_below(study.folder) == before


@pytest.mark.slow
def test_through_a_server_whose_database_was_put_back(store, server, study, tmp_path):
    """Real server on a real database, which is stopped, put back from its backup and started again."""
    directory = study.trial()
    write_trial(directory, range(600), outcome=None, owner=this_process())
    sync(study.folder, store)
    copy_database(tmp_path / "mlflow.db", tmp_path / "backup.db")
    remote = open_store(server.url)
    write_trial(directory, range(600, 900))
    assert sync(study.folder, remote).points_sent == 300
    marked = mark_of(remote)
    server.kill()
    copy_database(tmp_path / "backup.db", tmp_path / "mlflow.db")
    server.start()
    assert mark_of(remote) != marked
    assert sync(study.folder, remote).points_sent == 300
    assert mark_of(remote) == marked
    assert is_whole(remote, directory)


def test_a_program_whose_supervisor_died_is_judged_without_its_journal_being_written(store, study):
    directory = study.folder / "control-0"
    trial_of(study.spec, argv=("python", "train.py"), rules=OutcomeRules()).write(directory / "trial.json")
    for seed, hurt in ((1, "trial.json"), (2, "journal.jsonl")):  # which is nothing to this trial
        twin = study.folder / f"control-{seed}"
        trial_of(study.spec, seed=seed).write(twin / "trial.json")
        write_trial(twin)
        (twin / hurt).write_text("[" * 5000 + "\n\n")
    write_trial(directory, range(50), outcome=None)
    with Journal(directory) as journal:
        for step in (9, 19, 29, 39, 49):
            journal.record(step, {names.VAL_PREFIX + "loss": 1 / step})
        journal.event("recorded", {"step": 49})  # its Recorder was closed
    before = everything_below(directory)
    sync(study.folder, store)
    run = only_trial(store)
    assert (run.info.status, run.data.tags[names.OUTCOME]) == ("FINISHED", "converged")
    assert everything_below(directory) == before
    sent = stored_points(store, run)
    assert sent[names.LAST_STEP]
    assert sync(study.folder, store, verify=True).otherwise == ()  # of what the run was closed with

    assert close_if_abandoned(directory)  # the launcher, which goes on with the study, writes the same end
    sync(study.folder, store)
    assert stored_points(store, only_trial(store)) == sent == journal_points(directory)
