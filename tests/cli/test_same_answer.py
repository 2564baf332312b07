"""The same study says the same from its store, from an export of it, and through a real MLflow server."""

import json
import sqlite3
from contextlib import closing

import pytest
from tracking_helpers import Server

from fnostab.record import names
from fnostab.record.table_file import read_table
from fnostab.report.named_studies import StoredStudies
from fnostab.report.stored_studies import judge
from fnostab.tracking import find_experiment, newest_study, open_store, trial_rows

STORED = ("--experiment", "shallow", "--deep-experiment", "deep")
OF_THE_SOURCE = ("judged", "conditions", "studies", "study_runs", "verdict_run")


@pytest.fixture
def store(workplace):
    return open_store(f"sqlite:///{workplace}/mlflow.db")


@pytest.fixture
def recorded(store, record_study, call):
    """Two stages: failures, other qualities, trials that ran out of memory, run or are deleted, and an earlier look."""
    arms = {"control": 7, "arch_fix": 1, "opt_fix": 2}
    values = {"ssim": {"arch_fix": 0.85}, "loss": {"control": 0.030, "arch_fix": 0.020, "opt_fix": 0.031}}
    record_study(store, "shallow", {"control": 2, "arch_fix": 1, "opt_fix": 2}, seeds=2, **values)
    assert call("decide", "--experiment", "shallow")[0] == 0  # nothing could be tested: no look
    record_study(store, "shallow", {"control": 5, "arch_fix": 0, "opt_fix": 0}, seeds=range(2, 9), **values)
    assert call("decide", "--experiment", "shallow")[0] == 0
    record_study(store, "shallow", dict.fromkeys(arms, 0), seeds=range(9, 13), **values)
    record_study(store, "shallow", {"control": "oom"}, seeds=range(13, 14))
    record_study(store, "shallow", {"opt_fix": 0}, seeds=range(13, 14))
    record_study(store, "deep", {"control": 9, "arch_fix": 2}, study="stage_b", seeds=12, loss={"arch_fix": 0.027})
    store.client.delete_tag(at_work := runs(store, "shallow")["opt_fix", 13], names.OUTCOME)
    store.client.update_run(at_work, status="RUNNING")
    delete(store, "shallow", ("arch_fix", 12), ("control", 4))
    delete(store, "deep", ("arch_fix", 11))
    return store


def runs(store, experiment):
    """Run ids of the trials by arm and seed."""
    found = find_experiment(store, experiment)
    return {(row.arm, row.seed): row.run_id for row in trial_rows(store, found, newest_study(store, found))}


def delete(store, experiment, *trials):
    for trial in trials:
        store.client.delete_run(runs(store, experiment)[trial])


def answer(call, *arguments):
    """What `decide --json` says, but for where it is from."""
    code, out, err = call("decide", *arguments, "--json")
    assert code == 0, err
    said = {name: value for name, value in json.loads(out).items() if name not in OF_THE_SOURCE}
    said["next"].pop("command")
    return said


def test_store_export_pandas_and_server_say_the_same(recorded, call, tmp_path):
    stored = answer(call, *STORED)
    arms = {(arm["stage"], arm["arm"]): arm["left_out"] for arm in stored["arms"]}
    assert arms["a", "control"] == {"oom": [13], "missing": [4]}
    assert (arms["a", "arch_fix"], arms["a", "opt_fix"]) == ({"missing": [12]}, {"running": [13]})
    assert arms["b", "arch_fix"] == {"missing": [11]}
    assert (stored["look"]["number"], len(stored["trials"])) == (2, 13 + 12 + 14 + 12 + 11)
    assert {c["state"] for c in stored["criteria"]} == {"met", "not_met", "untestable"}

    assert call("export", "trials.csv", *STORED)[0] == 0
    assert answer(call, "--table", "trials.csv") == stored

    server = Server(recorded, tmp_path)
    server.start()
    try:
        assert answer(call, *STORED, "--tracking-uri", server.url) == stored
        assert call("export", "served.csv", *STORED, "--tracking-uri", server.url)[0] == 0
    finally:
        server.kill()
    assert read_table("served.csv") == read_table("trials.csv")

    pandas = pytest.importorskip("pandas")
    pandas.read_csv("trials.csv").to_csv("trials.csv", index=False)
    assert answer(call, "--table", "trials.csv") == stored


def test_seeds_that_were_asked_for_and_have_no_run_are_missing(store, record_study, call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    record_study(store, "shallow", {"control": 5, "arch_fix": 0}, seeds=8)
    record_study(store, "shallow", {"opt_fix": 0}, seeds=3)
    assert "missing" not in call("decide", "--experiment", "shallow")[1]
    delete(store, "shallow", *(("arch_fix", seed) for seed in (5, 6, 7)), *(("opt_fix", seed) for seed in range(3)))
    out = call("decide", "--experiment", "shallow")[1]
    assert "opt_fix is left out: none of its 3 trials has a run" in out
    assert "5 converged, 3 missing" in out
    assert "rerun the 3 trials of arch_fix without an outcome" in out
    command = "fnostab run stage_a --experiment shallow --seeds 8 --arms arch_fix"
    printed = next(line for line in out.splitlines() if command in line)
    assert "--tracking-uri" not in printed
    named = ("--tracking-uri", "sqlite:///mlflow.db")  # elsewhere the command would train every trial again
    assert f"{printed} {' '.join(named)}\n" in call("decide", "--experiment", "shallow", *named)[1]
    case, _ = judge(store, StoredStudies("shallow", tracking_uri="http://ada:s3cret@host"))
    assert case.command.endswith("--tracking-uri 'http://ada:***@host'")  # it stands in reports, and in MLflow


def test_an_answer_is_printed_though_the_store_takes_no_new_run(store, record_study, call, workplace):
    record_study(store, "shallow", {"control": 9, "arch_fix": 0}, seeds=10)
    with closing(sqlite3.connect(workplace / "mlflow.db")) as database:
        database.execute("CREATE TRIGGER t BEFORE INSERT ON runs BEGIN SELECT RAISE(ABORT, 'readonly'); END")
    code, out, err = call("decide", "--experiment", "shallow")
    assert (code, "arch_fix helps" in out) == (2, True)
    assert err.startswith("error: the verdict is not recorded: ")
    assert json.loads(call("decide", "--experiment", "shallow", "--json")[1])["arms"]


@pytest.mark.parametrize(
    ("study", "failures"),
    [
        ("crash_hunt", {"depth_4": 0, "depth_6": 1, "depth_8": "oom"}),
        ("stress_lr", {"control_0.005": 0, "control_0.02": 1, "control_0.04": 3, "bounded_0.02": 0, "bounded_0.04": 1}),
    ],
)
def test_what_is_said_in_place_of_answers_is_said_of_a_table_too(store, record_study, call, study, failures):
    record_study(store, "mine", failures, study=study, **{"training.learning_rate": None})
    stored = answer(call, "--experiment", "mine")
    assert stored["special"] or stored["stress"]
    call("export", "t.csv", "--experiment", "mine")
    assert answer(call, "--table", "t.csv") == stored
