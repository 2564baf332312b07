"""Trials with records that nobody should have written: each costs itself, and neither its trial nor the others."""

import json
import lzma
import os
import shutil
import time
import zlib

import pytest
from tracking_helpers import only_trial, runs_of_kind, stored_points, write_trial

from fnostab.errors import JournalError
from fnostab.record import names
from fnostab.record.archive import archive
from fnostab.record.journal import Journal, read_journal
from fnostab.record.lines import DEEPEST, LATEST_MS
from fnostab.record.outcomes import Outcome
from fnostab.tracking import live_sink, open_store, sync
from fnostab.tracking.repair.journals_behind import journals_behind
from fnostab.tracking.upload.batch import MAX_NAME_LENGTH, RunNames
from fnostab.tracking.upload.trial_run import MOST_NAMED

NOW_MS = int(time.time() * 1000)
POINT = {"t": NOW_MS, "s": 5, "v": {"lr": 1.0}}


def line(record):
    text = record if isinstance(record, bytes) else json.dumps(record).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def event(name, payload, time_ms=NOW_MS):
    return {"t": time_ms, "e": name, "p": payload}


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


REFUSED = {  # records that are none: left out and named
    "time is text": POINT | {"t": "now"},
    "time is negative": POINT | {"t": -1},
    "time is a fraction": POINT | {"t": 1.5},
    "time is far": POINT | {"t": LATEST_MS + 1},
    "time is true": POINT | {"t": True},
    "step is text": POINT | {"s": "5"},
    "step is a fraction": POINT | {"s": 5.5},
    "step is negative": POINT | {"s": -1},
    "step is huge": POINT | {"s": 2**63},
    "value is text": POINT | {"v": {"lr": "1"}},
    "value is true": POINT | {"v": {"lr": True}},
    "value is a list": POINT | {"v": {"lr": [1.0]}},
    "value is null": POINT | {"v": {"lr": None}},
    "value is NaN": b'{"t":1,"s":1,"v":{"lr":NaN}}',
    "value is infinite": b'{"t":1,"s":1,"v":{"lr":1e999}}',
    "value is an integer beyond floats": b'{"t":1,"s":1,"v":{"lr":1%s}}' % (b"0" * 400),
    "value has too many digits": b'{"t":1,"s":1,"v":{"lr":1%s}}' % (b"0" * 5000),
    "values are a list": POINT | {"v": [1.0]},
    "not finite is another word": POINT | {"x": {"lr": "NaN!"}},
    "a list": [1, 2],
    "a number": 7,
    "empty": {},
    "no JSON": b"{",
    "no UTF-8": b'{"t":1,"e":"\xff","p":{}}',
    "brackets": b"[" * 100_000,
    "event without a payload": {"t": NOW_MS, "e": "tags"},
    "event's payload is a list": event("tags", []),
    "event's name is a number": event(5, {}),
    "params are deep": event("params", {"a": nested(DEEPEST + 2)}),
    "owner is a number": event("tags", {names.OWNER: 5}),
    "outcome tag is unknown": event("tags", {names.OUTCOME: "splendid"}),
    "failure step is text": event("tags", {names.OUTCOME: "nonfinite", names.FAILURE_STEP: "soon"}),
    "scheduled steps are text": event("started", {"scheduled_steps": "many"}),
    "artifact without a path": event("artifact", {"artifact_path": "x"}),
    "artifact's path is a list": event("artifact", {"path": ["x"], "artifact_path": None}),
    "data set without a digest": event("dataset", {"name": "a", "source": "b"}),
    "data set's digest is a number": event("dataset", {"name": "a", "digest": 5, "source": "b"}),
    "outcome is unknown": event("outcome", {"outcome": "splendid"}),
    "outcome is a group": event("outcome", {"outcome": {"a": 1}}),
    "outcome's step is a group": event("outcome", {"outcome": "converged", "failure_step": {"a": 1}}),
    "outcome's rules are a number": event("outcome", {"outcome": "converged", "rules_held": 5}),
    "outcome's rules are numbers": event("outcome", {"outcome": "converged", "rules_held": [5]}),
    "outcome's reason is a list": event("outcome", {"outcome": "converged", "reason": ["a"]}),
}
LEFT_OUT = {  # records of which a part can't be taken
    "artifact of elsewhere": event("artifact", {"path": "../../study.json", "artifact_path": None}),
    "artifact to elsewhere": event("artifact", {"path": "trial.json", "artifact_path": "../../x"}),
    "artifact to the root": event("artifact", {"path": "trial.json", "artifact_path": "/x"}),
    "artifact with a FIFO": event("artifact", {"path": "pipes", "artifact_path": None}),
    "artifact of a name that no file has": event("artifact", {"path": "n\0", "artifact_path": None}),
    "artifact of a name that is too long": event("artifact", {"path": "a/" + "x" * 5000, "artifact_path": None}),
    "artifact to a name that no folder has": event("artifact", {"path": "trial.json", "artifact_path": "n\0"}),
    "tag of another trial": event("tags", {names.TRIAL_ID: "another"}),
    "tag of another kind": event("tags", {names.KIND: "study", "mine": "1"}),
    "tag of a mark": event("tags", {names.SENT: "999999 00000000 9999999999999"}),
    "tag of another parent": event("tags", {"mlflow.parentRunId": "another"}),
}
CLEANED = {  # what MLflow, SQLite or PostgreSQL would refuse, and what can be sent in another form
    "half a character in a param": event("params", {"a": "x\ud800y", "\udfff": 1}),
    "half a character in a metric": POINT | {"v": {"\ud800": 1.0}},
    "half a character in a reason": event("tags", {names.REASON: "\ud83d"}),
    "NUL": event("params", {"nul\0": "a\0b"}),
    "a name of a user": event("params", {"dropout (%)": 10, "a/../b": 1, "/": 2, "": 3, "..": 4}),
    "names of metrics": POINT | {"v": {"": 1.0, ".": 1.0, "../x": 1.0, "a(b": 1.0, "line\nbreak": 1.0}},
    "a long name": POINT | {"v": {"m" * 3000: 1.0}},
    "a long value": event("params", {"long": "v" * 100_000}),
    "a long tag": event("tags", {"long": "v" * 100_000}),
    "many params": event("params", {f"p{index}": index for index in range(500)}),
    "params that are no text": event("params", {"list": [1, {"a": None}], "not a number": float("nan"), "none": None}),
    "a data set with a long digest": event("dataset", {"name": "n\0", "digest": "d" * 99, "source": "s"}),
    "an artifact that is gone": event("artifact", {"path": "gone.txt", "artifact_path": "a"}),
    "an event of a later release": event("party", {"deep": nested(5)}),
    "the last time": POINT | {"t": LATEST_MS},
    "the largest step": POINT | {"s": 2**63 - 1},
    "the largest value": POINT | {"v": {"large": 1.7976931348623157e308, "small": 5e-324}},
}


def add(directory, records):
    """Put records before the last one of a trial's journal, which is its outcome."""
    *before, last = (directory / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (directory / "journal.jsonl").write_bytes(b"".join([*before, *map(line, records), last]))


@pytest.fixture
def folder(study):
    """A function that makes a trial with some records besides its own, and a good one."""

    def make(records):
        write_trial(study.trial("control"), range(3))
        directory = study.trial("agc")
        write_trial(directory, range(3))
        (directory / "pipes").mkdir()
        os.mkfifo(directory / "pipes" / "fifo")
        add(directory, records.values())
        return study.folder

    return make


def insist_that_all_else_is_there(store):
    runs = runs_of_kind(store, names.KIND_TRIAL)
    assert sorted(run.info.run_name for run in runs) == ["agc-0 converged", "control-0 converged"]
    for run in runs:
        assert (run.info.status, run.data.tags[names.OUTCOME]) == ("FINISHED", "converged")
        assert {0, 1, 2} <= {step for step, *_ in stored_points(store, run)["train/loss"]}
    return next(run for run in runs if run.info.run_name.startswith("agc"))


@pytest.mark.parametrize("records", [REFUSED, LEFT_OUT], ids=["refused", "left out"])
def test_a_bad_record_is_left_out_and_named(store, folder, call, records):
    path = folder(records)
    status, out, err = call("sync", str(path), "--tracking-uri", store.uri)
    assert (status, "2 trials, 6 points sent" in out) == (2, True)
    run = insist_that_all_else_is_there(store)
    said = err.splitlines()
    assert len(said) == len(records)
    for each in said:
        assert each.startswith("not sent: ")
        assert "/agc-0: " in each
        assert len(each) < 500
    assert len(run.data.tags[names.LEFT_OUT].splitlines()) == min(len(records), MOST_NAMED + 1)
    for more in ((), ("--verify",)):
        again = call("sync", str(path), "--tracking-uri", store.uri, *more)
        assert (again[0], sorted(again[2].splitlines())) == (2, sorted(said))  # it is said as long as it is so
        assert "2 trials" in again[1]


def test_what_can_be_sent_in_another_form_is(store, folder):
    assert sync(folder(CLEANED), store).refused == ()
    assert insist_that_all_else_is_there(store).data.params["dropout ___"] == "10"


@pytest.mark.slow
@pytest.mark.parametrize("kept_by", ["server", "postgresql"])
def test_other_stores_take_the_same(request, folder, kept_by):
    address = request.getfixturevalue(kept_by)
    remote = open_store(address.url if kept_by == "server" else address)
    assert sync(folder(CLEANED), remote).refused == ()
    insist_that_all_else_is_there(remote)


def fifo(path):
    path.unlink()
    os.mkfifo(path)


def folder_in_its_place(path):
    path.unlink()
    path.mkdir()


def loop(path):
    path.unlink()
    path.symlink_to(path.name)


def endless(path):
    path.unlink()
    path.symlink_to("/dev/zero")


def sparse(path):
    path.write_bytes(b"")
    with path.open("ab") as file:
        file.truncate(10**11)


def noise(path):
    path.write_bytes(bytes(range(256)) * 100)


def bomb(path):
    path.unlink()
    path.with_name("journal.jsonl.xz").write_bytes(lzma.compress(bytes(10**8)))


@pytest.mark.parametrize("file", ["journal.jsonl", "trial.json", "../study.json"])
@pytest.mark.parametrize("become", [fifo, folder_in_its_place, loop, endless, sparse, noise, bomb])
def test_a_file_that_is_none_costs_its_trial_alone(store, study, make_study, file, become):
    bad, good = study.trial(), make_study(hash="900d").trial()
    for directory in (bad, good):
        write_trial(directory, range(3))
    if become is bomb and file != "journal.jsonl":
        pytest.skip("only journals are archived")
    become(bad / file)
    started = time.monotonic()
    report = sync(study.folder.parent, store)
    assert time.monotonic() - started < 30
    assert "900d-control" in {r.data.tags[names.TRIAL_ID][:12] for r in runs_of_kind(store, names.KIND_TRIAL)}
    (line,) = report.refused
    assert str(bad if ".." not in file else bad.parent) in line


@pytest.mark.parametrize("archived", [False, True], ids=["journal", "archive"])
def test_a_journal_that_lost_its_trial_file_is_named_and_sent_once_that_is_back(store, study, archived):
    lost, other = study.trial(), study.trial(seed=1)
    for directory in (lost, other):
        write_trial(directory)
    if archived:
        archive(lost)
    kept = (lost / "trial.json").rename(study.folder.parent / "kept.json")
    report = sync(study.folder, store)
    assert (report.trials, len(report.refused)) == (1, 1)
    assert f"{lost} holds neither a trial.json" in report.refused[0]
    assert "run its study again, which writes it" in report.refused[0]
    for file in study.folder.glob("*/journal.jsonl*"):
        os.utime(file, (1, 1))  # long quiet
    assert [str(lost) in line for line in journals_behind(store, study.folder).unreadable] == [True]
    kept.rename(lost / "trial.json")
    assert sync(study.folder, store).refused == ()
    assert len(runs_of_kind(store, names.KIND_TRIAL)) == 2


def test_a_study_that_cannot_be_read_does_not_keep_its_trials_back(store, study):
    write_trial(study.trial())
    content = (study.folder / "study.json").read_text()
    (study.folder / "study.json").write_text(content.replace("control", "c0ntrol", 1))
    (line,) = sync(study.folder, store).refused
    assert "study.json, without which its trials are sent: " in line
    assert only_trial(store).info.status == "FINISHED"
    (study.folder / "study.json").write_text(content)
    assert sync(study.folder, store).refused == ()
    (parent,) = runs_of_kind(store, names.KIND_STUDY)
    assert only_trial(store).data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_a_param_with_a_name_of_a_users_own_does_not_hold_up_a_live_run(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    with live_sink("mine") as sink:
        sink.event(names.PARAMS_EVENT, {"dropout (%)": 10})
        for step in range(100):
            sink.record(step, {"train/loss": 1.0})
    (run,) = runs_of_kind(store, names.KIND_LIVE, "mine")
    assert (run.info.status, run.data.params) == ("FINISHED", {"dropout ___": "10"})
    assert len(stored_points(store, run)["train/loss"]) == 100


def test_two_names_that_become_one_are_two(store, study):
    directory = study.trial()
    with Journal(directory) as journal:
        journal.record(0, {"a(b": 1.0, "a)b": 2.0, "a_b": 3.0})
        journal.event(names.PARAMS_EVENT, {"p?": 1, "p!": 2})
    sync(study.folder, store)
    with Journal(directory) as journal:
        journal.record(1, {"a)b": 5.0, "a[b": 7.0})
        journal.event(names.OUTCOME_EVENT, {"outcome": "converged"})
    sync(study.folder, store)  # a process that has to find out which name was given to which
    run = only_trial(store)
    values = {name: [value for _, value, _ in points] for name, points in stored_points(store, run).items()}
    assert values == {"a_b": [1.0], "a_b-2": [2.0, 5.0], "a_b-3": [3.0], "a_b-4": [7.0]}
    assert run.data.params == {"p_": "1", "p_-2": "2"}


def test_names_stay_within_mlflows_length():
    run_names = RunNames()
    given = [run_names.of("metric", "m" * 300 + str(index)) for index in range(12)]
    assert len(set(given)) == 12
    assert max(map(len, given)) == MAX_NAME_LENGTH


def test_what_the_store_alone_refuses_is_found_and_left_out(store, study, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRUNCATE_LONG_VALUES", "false")
    directory = study.trial()
    with Journal(directory) as journal:
        journal.event(names.PARAMS_EVENT, {f"p{index}": index for index in range(20)} | {"long": "v" * 10_000})
    write_trial(directory, range(20))
    (line,) = sync(study.folder, store).refused
    assert "control-0: param 'long': tracking database" in line
    run = only_trial(store)
    assert (run.info.status, len(run.data.params), len(stored_points(store, run)["lr"])) == ("FINISHED", 22, 20)


def test_an_artifact_that_cannot_be_sent_now_is_sent_later(store, study, tmp_path):
    directory = study.trial()
    write_trial(directory, range(3), outcome=None)
    (directory / "picture.txt").write_text("flat")
    with Journal(directory) as journal:
        journal.event(names.ARTIFACT_EVENT, {"path": "picture.txt", "artifact_path": "pictures"})
    write_trial(directory, range(3, 6))
    sync(study.folder.parent / "5eed" / "control-0", store)
    run = only_trial(store)
    (there,) = tmp_path.glob("mlruns/**/pictures")
    shutil.rmtree(there)
    there.write_text("in the way of a folder of that name")
    store.client.delete_tag(run.info.run_id, names.SENT)
    (line,) = sync(study.folder, store).refused
    assert "artifact 'picture.txt'" in line
    assert only_trial(store).info.status == "FINISHED"
    there.unlink()
    assert sync(study.folder, store).refused == ()
    assert (there / "picture.txt").read_text() == "flat"
    assert names.LEFT_OUT not in only_trial(store).data.tags


LINKS = ["upload.json", "upload.lock", "upload.json.partial", "upload.partial", "journal.lock", "recorder.lock"]


def test_no_link_lets_sync_or_reconcile_write_elsewhere(store, study, tmp_path, call):
    mine = tmp_path / "mine.txt"
    mine.write_text("precious")
    directory = study.trial()
    write_trial(directory, outcome=None)
    for name in LINKS:
        (directory / name).unlink(missing_ok=True)
        (directory / name).symlink_to(mine)
    assert sync(study.folder, store).refused == ()
    assert only_trial(store).info.status == "KILLED"
    store.client.update_run(only_trial(store).info.run_id, status="RUNNING")
    status, _, err = call("reconcile", "--output", "out", "--tracking-uri", store.uri)
    assert (status, mine.read_text()) == (2, "precious")
    assert "journal.lock is a link" in err


def test_a_store_cannot_lead_reconcile_out_of_its_folder(store, study, tmp_path, call):
    outside = study.folder.parent.parent.parent / "outside" / "5eed"
    shutil.copytree(study.folder, outside)
    directory = study.trial()
    shutil.copytree(directory, outside / "control-0", dirs_exist_ok=True)
    write_trial(outside / "control-0", outcome=None)
    sync(outside / "control-0", store)
    run = only_trial(store)
    store.client.set_tag(run.info.run_id, names.STUDY_HASH, "../../outside/5eed")
    store.client.update_run(run.info.run_id, status="RUNNING")
    before = (outside / "control-0" / "journal.jsonl").read_bytes()
    call("reconcile", "--output", "out", "--tracking-uri", store.uri)
    assert (outside / "control-0" / "journal.jsonl").read_bytes() == before


def test_linked_folders_are_followed_by_all_commands_alike(store, study, tmp_path, call):
    directory = study.trial()
    write_trial(directory, range(500))
    far = tmp_path / "disk"
    shutil.move(study.folder, far)
    study.folder.symlink_to(far)
    (study.folder.parent / "loop").symlink_to(study.folder.parent)
    (study.folder.parent / "root").symlink_to("/")
    at = "--output", "out", "--tracking-uri", store.uri
    assert "1 trial, 500 points sent" in call("sync", "out", at[2], at[3])[1]
    os.utime(far / "control-0" / "journal.jsonl", (1, 1))
    assert "the store has all records of 1 trial in out" in call("doctor", *at)[1]
    assert "1 journal of that age in out" in call("prune", "--older-than", "0d", *at)[1]


def test_the_words_for_outcomes_are_those_of_the_outcomes():
    assert set(names.OUTCOMES) == set(Outcome)


def test_every_record_that_is_read_is_of_its_type(tmp_path):
    """Whatever a reader other than `sync` meets is an error with its place, not an accident."""
    path = tmp_path / "journal.jsonl"
    for record in REFUSED.values():
        good = line({"t": 1, "e": "tags", "p": {}})
        path.write_bytes(good + line(record))
        said = []
        assert len(list(read_journal(path, leave_out=said.append))) == 1
        assert said[0].startswith(f"journal.jsonl is damaged at byte {len(good)}: ")
        with pytest.raises(JournalError, match=f"damaged at byte {len(good)}: "):
            list(read_journal(path))
