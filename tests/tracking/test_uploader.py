import json
import zlib

import pytest
from tracking_helpers import journal_points, only_trial, runs_of_kind, stored_points, write_outcome, write_trial

from fnostab.errors import TrackingError
from fnostab.record import names
from fnostab.record.journal import Journal
from fnostab.record.safe_files import held
from fnostab.tracking import Uploader
from fnostab.tracking.upload.follower import Follower
from fnostab.tracking.upload.mark import Mark


@pytest.fixture
def uploader(store, parent):
    return Uploader(store, parent)


def test_a_run_holds_exactly_the_journals_points(store, study, uploader):
    directory = study.trial("agc", 7)
    write_trial(directory, range(1500), val_loss_best=0.0123)
    uploader.follow(directory)
    assert uploader.poll() == 1501
    assert uploader.trouble is None
    run = only_trial(store)
    assert stored_points(store, run) == journal_points(directory)
    assert run.data.metrics["val_loss_best"] == 0.0123


def test_a_run_is_found_by_its_tags_below_its_study(store, study, parent, uploader):
    directory = study.trial("agc", 7)
    write_trial(directory)
    uploader.follow(directory)
    uploader.poll()
    run = only_trial(store)
    tags = run.data.tags
    assert (tags[names.ARM], tags[names.SEED], tags["arm"], tags["seed"]) == ("agc", "7", "agc", "7")
    assert (tags[names.STUDY], tags[names.STUDY_HASH], tags[names.PROFILE]) == ("shootout", "5eed", "small")
    assert (tags[names.SCHEMA_TAG], tags[names.DEVICE]) == (names.SCHEMA, "cpu")
    assert tags["mlflow.parentRunId"] == parent
    assert run.data.params == {"model.fno_blocks": "3", "execution.gradient_clip_val": "null"}
    assert run.info.run_name == "agc-7 converged"


def test_polling_again_sends_nothing(store, study, uploader):
    directory = study.trial()
    write_trial(directory)
    uploader.follow(directory)
    assert uploader.poll() == 30
    assert uploader.poll() == 0


def test_a_crash_before_the_mark_was_written_doubles_nothing(store, study, parent):
    directory = study.trial()
    write_trial(directory, range(1200))
    for _ in range(2):
        again = Uploader(store, parent)
        again.follow(directory)
        again.poll()
        store.client.delete_tag(only_trial(store).info.run_id, names.SENT)
    assert stored_points(store, only_trial(store)) == journal_points(directory)


def test_points_that_come_later_go_to_the_same_run(store, study, parent):
    directory = study.trial()
    write_trial(directory, range(10), outcome=None)
    for steps, outcome in ((range(10, 20), None), (range(20, 30), "converged")):
        restarted = Uploader(store, parent)
        restarted.follow(directory)
        restarted.poll()
        assert only_trial(store).info.status == "RUNNING"
        write_trial(directory, steps, outcome)
    restarted.poll()
    run = only_trial(store)
    assert run.info.status == "FINISHED"
    assert [step for step, *_ in stored_points(store, run)["lr"]] == list(range(30))


def test_a_torn_last_line_is_sent_once_it_is_whole(store, study, uploader):
    directory = study.trial()
    write_trial(directory, range(5), outcome=None)
    with open(directory / "journal.jsonl", "ab") as file:
        file.write(b'0badc0de {"t":1,"s":5,"v":{"lr"')
    uploader.follow(directory)
    assert uploader.poll() == 5
    write_trial(directory, range(5, 8), outcome=None)
    assert uploader.poll() == 3
    assert stored_points(store, only_trial(store)) == journal_points(directory)


def test_values_that_are_not_finite_never_reach_the_store(store, study, uploader):
    directory = study.trial()
    with Journal(directory) as journal:
        journal.record(0, {"train/loss": 1.0, "grad_norm/total": float("inf")})
        journal.record(1, {"train/loss": float("nan")})
        journal.event(names.NONFINITE_EVENT, {"step": 1})
    uploader.follow(directory)
    assert uploader.poll() == 1
    assert only_trial(store).data.metrics == {"train/loss": 1.0}


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        ("converged", "FINISHED"),
        ("nonfinite", "FINISHED"),
        ("collapsed", "FINISHED"),
        ("exploded", "FINISHED"),
        ("stagnated", "FINISHED"),
        ("oom", "FAILED"),
        ("infra_error", "FAILED"),
        ("killed", "KILLED"),
    ],
)
def test_the_status_of_a_run_follows_from_the_outcome(store, study, uploader, outcome, status):
    directory = study.trial()
    write_trial(directory, outcome=outcome)
    uploader.follow(directory)
    uploader.poll()
    run = only_trial(store)
    assert (run.info.status, run.data.tags[names.OUTCOME]) == (status, outcome)


def test_an_outcome_keeps_its_evidence(store, study, uploader):
    directory = study.trial()
    with Journal(directory) as journal:
        journal.record(0, {"lr": 0.1})
        write_outcome(
            journal,
            "collapsed",
            failure_step=120,
            known_good_step=80,
            rules_held=["collapsed", "stagnated"],
            not_judged=["exploded: needs two validations"],
        )
    uploader.follow(directory)
    uploader.poll()
    tags = only_trial(store).data.tags
    assert (tags[names.FAILURE_STEP], tags[names.FAILURE_AFTER]) == ("120", "80")
    assert tags[names.RULES_HELD] == "collapsed; stagnated"
    assert tags[names.NOT_JUDGED] == "exploded: needs two validations"
    assert names.REASON not in tags


def test_a_killed_trial_that_is_tried_again_keeps_its_run(store, study, parent):
    directory = study.trial()
    with Journal(directory) as journal:
        journal.record(0, {"lr": 0.1})
        write_outcome(journal, "killed", reason="SIGTERM")
    first = Uploader(store, parent)
    first.follow(directory)
    first.poll()
    killed = only_trial(store)
    assert (killed.info.status, killed.data.tags[names.REASON]) == ("KILLED", "SIGTERM")

    write_trial(directory, range(1, 4), outcome=None)
    second = Uploader(store, parent)  # as after a restart of the launcher
    second.follow(directory)
    second.poll()
    running = only_trial(store)
    assert (running.info.status, running.data.tags[names.OUTCOME]) == ("RUNNING", "running")
    assert (running.info.run_name, names.REASON in running.data.tags) == ("control-0", False)

    write_trial(directory, range(4, 5), outcome="converged")
    second.poll()
    ended = only_trial(store)
    assert (ended.info.run_id, ended.info.status) == (killed.info.run_id, "FINISHED")
    assert ended.info.run_name == "control-0 converged"
    assert [step for step, *_ in stored_points(store, ended)["lr"]] == [0, 1, 2, 3, 4]


def test_what_follows_an_outcome_of_training_does_not_reopen_the_run(store, study, uploader):
    directory = study.trial()
    write_trial(directory, outcome="nonfinite")
    uploader.follow(directory)
    uploader.poll()
    with Journal(directory) as journal:
        journal.record(100, {"test/ssim_amp": 0.5})
    uploader.poll()
    run = only_trial(store)
    assert (run.info.status, run.data.metrics["test/ssim_amp"]) == ("FINISHED", 0.5)


def test_artifacts_and_data_sets_are_sent(store, study, uploader):
    directory = study.trial()
    (directory / "artifacts").mkdir()
    (directory / "artifacts" / "truth.txt").write_text("flat")
    with Journal(directory) as journal:
        journal.record(0, {"lr": 0.1})
        journal.event(names.ARTIFACT_EVENT, {"path": "artifacts/truth.txt", "artifact_path": "images"})
        journal.event(names.ARTIFACT_EVENT, {"path": "artifacts/gone.txt", "artifact_path": None})
        dataset = {"name": "grid_lines", "digest": "ab" * 32, "source": "simulated", "context": "validation"}
        journal.event(names.DATASET_EVENT, dataset)
    uploader.follow(directory)
    uploader.poll()
    run = only_trial(store)
    assert uploader.trouble is None
    assert [a.path for a in store.client.list_artifacts(run.info.run_id, "images")] == ["images/truth.txt"]
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.tags[0].value) == ("grid_lines", "validation")


def test_an_artifact_outside_the_trial_is_refused(store, study, uploader):
    directory = study.trial()
    with Journal(directory) as journal:
        journal.event(names.ARTIFACT_EVENT, {"path": "../study.json", "artifact_path": None})
    uploader.follow(directory)
    uploader.poll()
    assert "lies outside" in uploader.trouble


def test_names_that_mlflow_refuses_are_spelt_so_that_it_does_not(store, study, uploader):
    directory = study.trial()
    with Journal(directory) as journal:
        journal.record(0, {"residual_gain/blocks[0]": 0.5, "/a//b": 1.0})
    uploader.follow(directory)
    uploader.poll()
    assert only_trial(store).data.metrics == {"residual_gain/blocks_0_": 0.5, "a/b": 1.0}


def test_a_tag_of_fnostabs_is_set_under_its_own_spelling_or_not_at_all(store, study, uploader):
    directory = study.trial()
    uploader.follow(directory)
    strange = {"./fnostab.sent": "0", "fnostab.seed/": "9", "//fnostab.outcome": "splendid", "a//b": "kept"}
    with Journal(directory) as journal:
        journal.event(names.TAGS_EVENT, strange)
        journal.event(names.TAGS_EVENT, {names.OUTCOME: "nonfinite", names.FAILURE_STEP: "3"})
    uploader.poll()
    tags = only_trial(store).data.tags
    assert (tags[names.SEED], tags["a/b"], tags[names.OUTCOME]) == ("0", "kept", "nonfinite")
    assert Mark.read(tags[names.SENT]).offset == (directory / "journal.jsonl").stat().st_size
    assert tags[names.LEFT_OUT].splitlines() == [f"tag {name!r}: no record may set it" for name in list(strange)[:3]]
    with Journal(directory) as journal:
        journal.event(names.TAGS_EVENT, {names.OUTCOME: "exploded"})
    Follower(store, directory).send()  # another process, which reads what was sent
    assert only_trial(store).data.tags[names.OUTCOME] == "exploded"
    assert "fnostab.outcome-2" not in only_trial(store).data.tags


def test_a_param_keeps_its_first_value_since_mlflow_changes_none(store, study, uploader):
    directory = study.trial()
    with Journal(directory) as journal:
        journal.event(names.PARAMS_EVENT, {"lr": 0.1})
        journal.event(names.PARAMS_EVENT, {"lr": 0.2, "width": 8})
        journal.record(0, {"loss": 1.0})
    uploader.follow(directory)
    uploader.poll()
    run = only_trial(store)
    assert uploader.trouble is None
    assert (run.data.params["lr"], run.data.params["width"], run.data.metrics["loss"]) == ("0.1", "8", 1.0)


def test_more_than_mlflow_takes_in_one_call(store, study, uploader):
    directory = study.trial()
    many = {f"p{index}": index for index in range(250)}
    with Journal(directory) as journal:
        journal.event(names.PARAMS_EVENT, many)
        journal.event(names.TAGS_EVENT, {name: str(value) for name, value in many.items()})
        journal.record(0, {f"m{index}": float(index) for index in range(2500)})
    uploader.follow(directory)
    uploader.poll()
    run = only_trial(store)
    assert uploader.trouble is None
    assert (len(run.data.params), len(run.data.metrics)) == (250, 2500)


def test_a_damaged_record_holds_up_neither_its_own_trial_nor_the_others(store, study, uploader):
    damaged, whole = study.trial("agc", 0), study.trial("control", 0)
    write_trial(damaged)
    content = (damaged / "journal.jsonl").read_bytes()
    (damaged / "journal.jsonl").write_bytes(content.replace(b'"s":3', b'"s":4', 1))
    write_trial(whole)
    for directory in (damaged, whole):
        uploader.follow(directory)
    assert uploader.poll() == 59
    assert "agc-0: not sent: journal.jsonl is damaged at byte" in uploader.trouble
    uploader.drain(5)
    runs = {run.info.run_name: run for run in runs_of_kind(store, names.KIND_TRIAL)}
    assert set(runs) == {"agc-0 converged", "control-0 converged"}
    assert "damaged at byte" in runs["agc-0 converged"].data.tags[names.LEFT_OUT]
    assert names.LEFT_OUT not in runs["control-0 converged"].data.tags


def test_what_is_not_wholly_sent_is_said_at_the_end(store, study, uploader):
    first, second = study.trial("agc", 0), study.trial("control", 0)
    for directory in (first, second):
        write_trial(directory)
        uploader.follow(directory)
    (first / "trial.json").write_text("{}")
    uploader.poll()
    with pytest.raises(TrackingError, match=r"1 of 2 trials are not fully sent.*fnostab sync .*agc-0"):
        uploader.drain(0.1)


def test_a_trial_that_cannot_be_sent_does_not_starve_the_others(store, study, uploader):
    first, second = study.trial("agc", 0), study.trial("control", 0)
    for directory in (first, second):
        write_trial(directory)
        uploader.follow(directory)
    (first / "trial.json").write_text("{}")
    uploader.poll()
    uploader.poll()
    assert "agc-0" in uploader.trouble
    assert [run.info.run_name for run in runs_of_kind(store, names.KIND_TRIAL)] == ["control-0 converged"]


def test_only_one_process_sends_a_journal(store, study, uploader):
    directory = study.trial()
    write_trial(directory)
    uploader.follow(directory)
    with held(directory / "journal.jsonl"):
        assert uploader.poll() == 0
        assert "another process" in uploader.trouble
    assert uploader.poll() == 30
    assert uploader.trouble is None


def test_a_second_record_of_a_trial_is_not_mixed_into_the_first(store, study, make_study, parent, tmp_path):
    first = study.trial()
    write_trial(first)
    second = tmp_path / "elsewhere" / "control-0"
    second.mkdir(parents=True)
    (second / "trial.json").write_text((first / "trial.json").read_text())
    record = json.dumps({"t": 12345, "s": 0, "v": {"lr": 9.0}}).encode()
    (second / "journal.jsonl").write_bytes(b"%08x %s\n" % (zlib.crc32(record), record))
    uploader = Uploader(store, parent)
    for directory in (first, second):
        uploader.follow(directory)
    uploader.poll()
    assert "another directory" in uploader.trouble
    assert stored_points(store, only_trial(store)) == journal_points(first)


def test_in_the_background_points_arrive_by_themselves(store, study, uploader):
    directory = study.trial()
    uploader.follow(directory)
    uploader.start(interval_s=0.02)
    write_trial(directory, range(200))
    uploader.stop()
    uploader.drain(30)
    assert stored_points(store, only_trial(store)) == journal_points(directory)
