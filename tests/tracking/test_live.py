import pytest
from tracking_helpers import journal_points, runs_of_kind, stored_points

from fnostab.errors import JournalError
from fnostab.record import names
from fnostab.record.safe_files import held
from fnostab.tracking import live_sink, sync


@pytest.fixture
def live(store, monkeypatch):
    """The store, once it is the one that a script would find."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    return store


def only_live(store):
    (run,) = runs_of_kind(store, names.KIND_LIVE, "mine")
    return run


def test_a_script_of_the_users_own(live):
    with live_sink("mine", "first try") as sink:
        sink.event(names.PARAMS_EVENT, {"width": 64})
        for step in range(100):
            sink.record(step, {"train/loss": 1 / (step + 1)})
    run = only_live(live)
    assert (run.info.run_name, run.info.status, run.data.params) == ("first try", "FINISHED", {"width": "64"})
    assert names.OUTCOME not in run.data.tags  # nobody judged it
    assert stored_points(live, run) == journal_points(sink.directory)


def test_the_outcome_that_a_monitor_announced_ends_the_run(live):
    with live_sink("mine") as sink:
        sink.record(0, {"train/loss": 1.0})
        sink.event(names.TAGS_EVENT, {names.OUTCOME: "collapsed", names.FAILURE_STEP: "0"})
    run = only_live(live)
    assert (run.info.status, run.data.tags[names.OUTCOME]) == ("FINISHED", "collapsed")


def test_a_script_that_raises(live):
    def script():
        with live_sink("mine") as sink:
            sink.record(0, {"train/loss": 1.0})
            raise ValueError("no such layer")

    with pytest.raises(ValueError, match="no such layer"):
        script()
    run = only_live(live)
    assert (run.info.status, run.data.tags[names.REASON]) == ("FAILED", "ValueError: no such layer")


@pytest.mark.parametrize(
    ("end", "status", "outcome", "reason"),
    [
        (SystemExit(0), "FINISHED", None, None),
        (SystemExit("no data"), "KILLED", "killed", "SystemExit: no data"),
        (KeyboardInterrupt(), "KILLED", "killed", "KeyboardInterrupt"),
        (MemoryError(), "FAILED", "oom", "MemoryError"),
    ],
)
def test_how_a_script_ends_is_the_end_of_its_run(live, end, status, outcome, reason):
    with pytest.raises(type(end)), live_sink("mine"):
        raise end
    run = only_live(live)
    assert (run.info.status, run.data.tags.get(names.OUTCOME), run.data.tags.get(names.REASON)) == (
        status,
        outcome,
        reason,
    )


def test_a_sink_that_is_closed_says_so(live):
    with live_sink("mine") as sink:
        sink.record(0, {"train/loss": 1.0})
    with pytest.raises(JournalError, match="is closed: record within the block of its `with`"):
        sink.record(1, {"train/loss": 1.0})


def test_a_directory_that_exists_continues_its_run(live, tmp_path):
    for steps in (range(10), range(20)):
        with live_sink("mine", directory=tmp_path / "run") as sink:
            for step in steps:
                sink.record(step, {"lr": 0.1})
    assert [step for step, *_ in stored_points(live, only_live(live))["lr"]] == list(range(20))


def test_its_journal_can_be_sent_to_another_store(live, make_store):
    with live_sink("mine") as sink:
        sink.record(0, {"train/loss": 1.0})
    other = make_store("other")
    assert sync(sink.directory, other).points_sent == 1
    assert stored_points(other, only_live(other)) == journal_points(sink.directory)


def test_what_could_not_be_sent_is_said_at_the_end(live, tmp_path, monkeypatch):
    monkeypatch.setattr("fnostab.tracking.upload.live.DRAIN_TIMEOUT_S", 0.1)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "journal.jsonl").touch()
    with (
        held(tmp_path / "run" / "journal.jsonl"),
        pytest.warns(UserWarning, match="fnostab sync .*/run` sends the rest later") as warned,
        live_sink("mine", directory=tmp_path / "run") as sink,
    ):
        sink.record(0, {"lr": 0.1})
    assert warned[0].filename == __file__  # it points at the script, not at this library
    assert sync(tmp_path / "run", live).points_sent == 1
