import os
import shutil
from pathlib import Path

import pytest
import sqlalchemy
from tracking_helpers import Server, only_trial, write_outcome, write_trial

from fnostab.errors import TrackingError
from fnostab.ptychography import metric_names
from fnostab.record import names
from fnostab.record.attempt import this_process
from fnostab.record.journal import Journal
from fnostab.record.outcomes import Outcome
from fnostab.record.table import TrialRow
from fnostab.tracking import (
    ensure_study,
    find_experiment,
    finish_study,
    link_project_run,
    log_verdict,
    newest_study,
    open_store,
    sync,
    trial_rows,
)
from fnostab.tracking.read.histories import metric_histories
from fnostab.tracking.read.summaries import read_summaries

LAST = {
    names.VAL_LOSS_BEST: 0.0138,
    names.LAST_STEP: 29.0,
    metric_names.VAL_SSIM_AMP: 0.9,
    names.GRAD_P99_LAST_HALF: 8.0,
    names.GRAD_MEDIAN_LAST_HALF: 2.0,
}


def test_the_table_of_a_study(store, study):
    write_trial(study.trial("agc", 0), outcome="killed")
    write_trial(study.trial("control", 10), outcome="converged", **LAST)
    beside = {names.CONSTANT_LOSS: 0.21, names.NOISE_FLOOR_LOSS: 0.045}
    with_reasons = study.trial("control", 2)
    write_trial(with_reasons, outcome=None, **{names.VAL_LOSS_BEST: 0.18} | beside)
    with Journal(with_reasons) as journal:
        write_outcome(journal, "collapsed", not_judged=["exploded: needs two validations", "stagnated: needs x and y"])
    sync(study.folder, store)
    experiment = find_experiment(store, "stage_a")
    record = newest_study(store, experiment)
    assert record.spec == study.spec
    table = trial_rows(store, experiment, record)
    assert [(row.arm, row.seed, row.outcome, row.loss) for row in table] == [
        ("control", 2, Outcome.COLLAPSED, 0.18),
        ("control", 10, Outcome.CONVERGED, 0.0138),
        ("agc", 0, Outcome.KILLED, None),
    ]
    assert (table[0].constant_loss, table[0].noise_floor_loss) == (0.21, 0.045)
    assert table[0].not_judged == ("exploded: needs two validations", "stagnated: needs x and y")
    assert table[1] == TrialRow(
        "control",
        10,
        Outcome.CONVERGED,
        0.0138,
        None,
        29,
        measures={metric_names.VAL_SSIM_AMP: 0.9},
        grad_ratio=4.0,
        run_id=table[1].run_id,
    )
    assert store.client.get_run(table[1].run_id).data.metrics[names.VAL_LOSS_BEST] == 0.0138


def test_a_server_and_its_database_give_the_same_table(served, make_study):
    store, study = served[0], make_study(experiment="same")
    write_trial(study.trial("control", 0), **LAST, **{metric_names.SPREAD: 0.7})
    write_trial(study.trial("control", 1), outcome="collapsed")
    write_trial(study.trial("agc", 0), outcome=None)
    sync(study.folder, store)
    tables = []
    for each in served:
        experiment = find_experiment(each, "same")
        tables.append(trial_rows(each, experiment, newest_study(each, experiment)))
    assert tables[0] == tables[1]
    assert len(tables[0]) == 3


@pytest.mark.parametrize(
    ("outcome", "by_hand"), [("collapsed", "converged"), ("converged", "exploded"), ("killed", "oom")]
)
def test_an_outcome_that_somebody_changed_is_not_judged_until_it_is_put_right(store, study, outcome, by_hand):
    for seed in (0, 1):
        write_trial(study.trial("control", seed), outcome=outcome)
    sync(study.folder, store)
    experiment = find_experiment(store, "stage_a")
    record = newest_study(store, experiment)
    first, second = trial_rows(store, experiment, record)
    store.client.set_tag(first.run_id, names.OUTCOME, by_hand)
    with pytest.raises(TrackingError) as caught:
        trial_rows(store, experiment, record)
    assert str(caught.value).startswith(
        f"tag fnostab.outcome of run {first.run_id} says {by_hand}, "
        f"but its end was recorded with the name 'control-0 {outcome}' and the status "
    )
    assert "`fnostab sync --verify` on the output directory" in str(caught.value)
    sync(study.folder, store, verify=True)
    assert trial_rows(store, experiment, record) == [first, second]


def test_an_outcome_that_somebody_deleted_is_no_trial_that_still_runs(store, study):
    write_trial(study.trial("control", 0), outcome="collapsed", failure_step=3)
    sync(study.folder, store)
    experiment = find_experiment(store, "stage_a")
    record = newest_study(store, experiment)
    (row,) = trial_rows(store, experiment, record)
    store.client.delete_tag(row.run_id, names.OUTCOME)
    with pytest.raises(
        TrackingError, match=f"tag fnostab.outcome of run {row.run_id} is gone, but its end was recorded"
    ):
        trial_rows(store, experiment, record)
    sync(study.folder, store, verify=True)
    assert trial_rows(store, experiment, record) == [row]
    store.client.set_tag(row.run_id, names.FAILURE_STEP, "-3")
    with pytest.raises(TrackingError, match=r"damaged tags \(-3 is not a step\): correct it, or delete it"):
        trial_rows(store, experiment, record)


def test_a_name_that_is_the_owners_and_an_outcome_that_was_only_announced_are_taken(store, study):
    write_trial(study.trial(), outcome="collapsed")
    write_trial(at_work := study.trial(seed=1), outcome=None, owner=this_process())
    with Journal(at_work) as journal:
        journal.event(names.TAGS_EVENT, {names.OUTCOME: "nonfinite", names.FAILURE_STEP: "29"})
    sync(study.folder, store)
    experiment = find_experiment(store, "stage_a")
    record = newest_study(store, experiment)
    before = trial_rows(store, experiment, record)
    store.client.update_run(before[0].run_id, name="the one with the flat image")
    assert [row.outcome for row in before] == [Outcome.COLLAPSED, Outcome.NONFINITE]
    assert trial_rows(store, experiment, record) == before


def test_a_run_whose_name_says_another_end_is_called_by_its_own_again(store, study):
    write_trial(study.trial(), outcome="collapsed")
    sync(study.folder, store)
    run_id = only_trial(store).info.run_id
    store.client.update_run(run_id, name="control-0 converged")
    sync(study.folder, store, verify=True)
    assert only_trial(store).info.run_name == "control-0 collapsed"


def test_deleted_runs_are_not_in_the_table(store, study):
    for seed in range(2):
        write_trial(study.trial("control", seed))
    sync(study.folder, store)
    experiment = find_experiment(store, "stage_a")
    record = newest_study(store, experiment)
    store.client.delete_run(trial_rows(store, experiment, record)[0].run_id)
    assert [row.seed for row in trial_rows(store, experiment, record)] == [1]


def test_the_newest_study_and_one_that_is_named(store, make_study):
    runs = [ensure_study(store, make_study(hash=hash).spec) for hash in ("0ld", "new")]
    experiment = find_experiment(store, "stage_a")
    assert newest_study(store, experiment).spec.hash == "new"
    assert newest_study(store, experiment, runs[0]).spec.hash == "0ld"
    with pytest.raises(TrackingError, match=f"no study with the run 'nope'.*{runs[0]}"):
        newest_study(store, experiment, "nope")


def test_trials_of_another_study_are_not_in_the_table(store, make_study, tmp_path):
    for hash in ("0ld", "new"):
        write_trial(make_study(hash=hash).trial("control", 0))
    sync(tmp_path / "out", store)
    experiment = find_experiment(store, "stage_a")
    assert len(trial_rows(store, experiment, newest_study(store, experiment))) == 1


def test_more_trials_than_fit_one_answer_of_a_server(served, make_study, monkeypatch):
    store, study = served[0], make_study(experiment="many")
    for seed in range(6):
        write_trial(study.trial("control", seed), range(2), x=1.0)
    sync(study.folder, store)
    monkeypatch.setattr("fnostab.tracking.read.summaries.FEW", 2)
    monkeypatch.setattr("fnostab.tracking.read.summaries.SHORT_PAGE", 1)
    experiment = find_experiment(store, "many")
    record = newest_study(store, experiment)
    for each in served:
        rows = trial_rows(each, experiment, record)
        assert [row.seed for row in rows] == [0, 1, 2, 3, 4, 5]
        each.client.log_metric(rows[0].run_id, "nor this", float("nan"))
        wanted = {"tags": (names.ARM, "not there"), "metrics": ("x", "nor this")}
        found = list(read_summaries(each, experiment, study.spec.hash, **wanted))
        assert [(run.tags, run.metrics) for run in found] == [({names.ARM: "control"}, {"x": 1.0})] * 6


@pytest.fixture(scope="module")
def served(tmp_path_factory, empty_database):
    """A database and a server on it, for tests that have experiments of their own in it."""
    folder, before = tmp_path_factory.mktemp("served"), Path.cwd()
    shutil.copy(empty_database, folder / "mlflow.db")
    os.chdir(folder)  # where MLflow puts artifacts
    store = open_store("sqlite:///mlflow.db")
    server = Server(store, folder)
    server.start()
    os.chdir(before)
    yield store, open_store(server.url)
    server.kill()


@pytest.fixture
def asked(store):
    """Every statement that the database is asked; what threads of other tests still ask of theirs is not counted."""
    statements = []

    def note(connection, cursor, statement, *more):
        if str(connection.engine.url) == store.uri:
            statements.append(statement)

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", note)
    yield statements
    sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", note)


def test_a_database_is_asked_as_often_for_many_trials_as_for_one(store, study, asked):
    """Of the table and of histories, which reports read."""
    counts = []
    for seed in range(3):
        write_trial(study.trial("control", seed), **LAST)
        sync(study.folder, store)
        experiment = find_experiment(store, "stage_a")
        record = newest_study(store, experiment)
        asked.clear()
        rows = trial_rows(store, experiment, record)
        histories = metric_histories(store, [row.run_id for row in rows], names.GRAD_NORM)
        assert [steps.size for steps, _ in histories.values()] == [30] * (seed + 1)
        counts.append(len(asked))
    assert counts[0] == counts[2] <= 4


def test_histories_are_those_that_mlflow_gives(served, make_study, monkeypatch):
    store, study = served[0], make_study(experiment="histories")
    for seed in range(3):
        write_trial(study.trial("control", seed))
    sync(study.folder, store)
    experiment = find_experiment(store, "histories")
    runs = [row.run_id for row in trial_rows(store, experiment, newest_study(store, experiment))]
    store.client.log_metric(runs[1], names.GRAD_NORM, 7.0, timestamp=2**41, step=4)  # a step again, later
    store.client.log_metric(runs[1], names.GRAD_NORM, float("nan"), timestamp=2**41, step=5)
    monkeypatch.setattr("fnostab.tracking.read.histories.MOST_NAMED", 2)
    expected = [0.1 * step for step in range(30)]
    for each in served:
        found = metric_histories(each, [*runs, "f" * 32] if each is store else runs, names.GRAD_NORM)
        for run_id in runs:
            steps, values = found[run_id]
            assert steps.tolist() == list(range(30))
            again = {4: 7.0} if run_id == runs[1] else {}
            assert values.tolist() == pytest.approx([again.get(n, v) for n, v in enumerate(expected)])
    assert metric_histories(store, ["f" * 32], names.GRAD_NORM)["f" * 32][0].size == 0


def test_a_missing_experiment_is_answered_with_those_that_there_are(store, study):
    ensure_study(store, study.spec)
    with pytest.raises(TrackingError, match=r"no experiment 'stage_z'.*there are: Default, stage_a"):
        find_experiment(store, "stage_z")


def test_an_experiment_without_a_study(store):
    with pytest.raises(TrackingError, match=r"has no study of fnostab: .* by `fnostab decide --runs FILE.yaml"):
        newest_study(store, find_experiment(store, "Default"))


def test_runs_of_another_schema_are_not_read(store, study):
    run_id = ensure_study(store, study.spec)
    store.client.set_tag(run_id, names.SCHEMA_TAG, "99")
    with pytest.raises(TrackingError, match="schema '99'"):
        newest_study(store, find_experiment(store, "stage_a"))


def test_a_study_that_is_started_again_keeps_its_run(store, study):
    first = ensure_study(store, study.spec)
    finish_study(store, first, "KILLED")
    assert ensure_study(store, study.spec) == first
    run = store.client.get_run(first)
    assert run.info.status == "RUNNING"
    assert run.data.params["control"] == "control"
    assert run.data.tags["mlflow.note.content"] == r"Does \*\*zero\_gamma\*\* train?"


def test_mlflow_runs_own_run_and_the_study_point_at_each_other(store, study, monkeypatch):
    project_run = store.client.create_run("0").info.run_id
    study_run = ensure_study(store, study.spec)
    assert not link_project_run(store, study_run)
    monkeypatch.setenv("MLFLOW_RUN_ID", project_run)
    assert link_project_run(store, study_run)
    tags = store.client.get_run(project_run).data.tags
    assert tags[names.STUDY_RUN] == study_run
    assert study_run in tags["mlflow.note.content"]
    assert store.client.get_run(study_run).data.tags[names.PROJECT_RUN] == project_run
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    assert not link_project_run(store, study_run)  # it is in another store


def test_a_verdict_is_a_run_with_its_evidence(store, study, tmp_path):
    study_run = ensure_study(store, study.spec)
    experiment = find_experiment(store, "stage_a")
    table = "| arm | failed |\n|---|---|\n" + "| control | 3/10 |\n" * 1000
    run_id = log_verdict(store, experiment, [study_run], "leaning GOLD (could be luck)", {"alpha": 0.05}, table)
    run = store.client.get_run(run_id)
    assert (run.data.tags[names.KIND], run.data.tags[names.VERDICT]) == ("verdict", "leaning GOLD (could be luck)")
    assert run.data.tags[names.STUDY_RUN] == study_run
    assert run.data.tags["mlflow.note.content"].startswith("# leaning GOLD (could be luck)\n\n| arm |")
    assert {a.path for a in store.client.list_artifacts(run_id)} == {"verdict.json", "verdict.md"}
