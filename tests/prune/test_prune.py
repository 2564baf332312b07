"""`fnostab prune` on real databases: what goes, what stays, and that nothing comes back."""

import shutil
import subprocess
import sys
import time

import numpy as np
import psycopg
import pytest
from tracking_helpers import StudyFolder, journal_points, only_trial, runs_of_kind, stored_points, write_trial

from fnostab.prune import KEPT_AT_MOST, old_journals, shape_of
from fnostab.record import names
from fnostab.record.journal import Journal
from fnostab.report import evidence
from fnostab.tracking import newest_study, open_store, sync, trial_rows
from fnostab.tracking.read.histories import metric_histories
from fnostab.tracking.repair.thinning import is_thinned, long_runs, thin

STEPS, SPIKE_AT = 1500, 1230


@pytest.fixture(scope="module")
def template(postgresql):
    """A PostgreSQL database with MLflow's tables, made by another process so that nothing here is connected to it."""
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute("CREATE DATABASE prune")
    address = f"{postgresql.rpartition('/')[0]}/prune"
    subprocess.run([sys.executable, "-m", "mlflow", "db", "upgrade", address], check=True, capture_output=True)
    return address


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request, workplace):
    if request.param == "sqlite":
        return open_store()
    name = f"prune_{time.time_ns()}"
    with psycopg.connect(request.getfixturevalue("postgresql"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {request.getfixturevalue('template').rpartition('/')[2]}")
    return open_store(request.getfixturevalue("template").replace("/prune", f"/{name}"))


def long_trial(directory, outcome="converged"):
    write_trial(directory, steps=range(SPIKE_AT), outcome=None)
    with Journal(directory) as journal:
        for step in range(SPIKE_AT, STEPS):
            norm = 4e4 if step == SPIKE_AT else 1 + step % 7
            journal.record(step, {"train/loss": 1 / (step + 1), "grad_norm/total": norm, "lr": 1e-3})
            if step % 10 == 0:
                journal.record(step, {names.GRAD_NORM_WINDOW_MAX: norm})
        journal.record(STEPS - 1, {names.VAL_LOSS_BEST: 0.25})
    if outcome:
        write_trial(directory, steps=[], outcome=outcome)


@pytest.fixture
def study(workplace):
    return StudyFolder(workplace / "outputs")


def long_ones(store, before_ms=None):
    return long_runs(store, before_ms or time.time_ns() // 1_000_000, KEPT_AT_MOST, None)


def prune(call, store, *more):
    status, out, err = call("prune", "--older-than", "0d", "--tracking-uri", store.uri, *more)
    assert (status, err) == (0, "")
    return out


def test_a_dry_run_changes_nothing_and_says_how_much_would_go(call, store, study):
    long_trial(directory := study.trial())
    sync(study.folder, store)
    before = stored_points(store, only_trial(store))
    out = prune(call, store)
    assert f"stage_a: 1 trial, at least {3 * (STEPS - KEPT_AT_MOST):,} of {3 * STEPS:,} points to delete" in out
    assert "1 journal of that age in outputs" in out
    assert out.endswith("nothing was changed: --yes does what is listed\n")
    assert stored_points(store, only_trial(store)) == before == journal_points(directory)


def test_curves_keep_their_spikes_and_ends_and_summaries_stay(call, store, study):
    long_trial(directory := study.trial())
    sync(study.folder, store)
    whole = journal_points(directory)
    summary = store.client.get_run(only_trial(store).info.run_id).data.metrics
    prune(call, store, "--yes")
    run = only_trial(store)
    left = stored_points(store, run)
    for name, points in left.items():
        assert set(points) <= set(whole[name])
        assert len(points) <= KEPT_AT_MOST
        assert (points[0], points[-1]) == (whole[name][0], whole[name][-1])
        assert {max(points, key=lambda p: p[1])[1], min(points, key=lambda p: p[1])[1]} == {
            max(p[1] for p in whole[name]), min(p[1] for p in whole[name]),
        }  # fmt: skip
    assert any(step == SPIKE_AT and value == 4e4 for step, value, _ in left["grad_norm/total"])
    assert left[names.VAL_LOSS_BEST] == whole[names.VAL_LOSS_BEST]
    assert run.data.metrics == summary
    assert is_thinned(store, run.info.experiment_id, "5eed")
    assert not is_thinned(store, run.info.experiment_id, "cafe")


def test_a_report_takes_no_step_that_is_gone_for_one_that_was_not_finite(call, store, study):
    long_trial(study.trial())
    sync(study.folder, store)
    experiment = only_trial(store).info.experiment_id
    rows = {"A": trial_rows(store, experiment, newest_study(store, experiment))}
    (curve,), source = read_curves(store, rows, experiment)
    assert (curve.steps.size, curve.nonfinite_steps.size, "every step" in source) == (STEPS, 0, True)
    prune(call, store, "--yes")
    (curve,), source = read_curves(store, rows, experiment)
    assert (curve.nonfinite_steps.size, "the largest of each window" in source) == (0, True)
    assert curve.values.max() == 4e4


def read_curves(store, rows, experiment):
    curves, source = evidence._read_curves(store, rows, is_thinned(store, experiment, "5eed"))
    return list(curves.values()), source


def test_nothing_is_sent_again_whatever_became_of_the_mark(call, store, study):
    long_trial(directory := study.trial())
    sync(study.folder, store)
    prune(call, store, "--yes")
    assert (directory / "journal.jsonl.xz").exists()
    left = stored_points(store, only_trial(store))
    assert sync(study.folder, store).points_sent == 0
    store.client.delete_tag(only_trial(store).info.run_id, names.SENT)
    assert sync(study.folder, store).points_sent == 0
    assert sync(study.folder, store).trials == 1
    assert stored_points(store, only_trial(store)) == left
    assert "no long curves of that age" in prune(call, store, "--yes")


def test_a_new_store_gets_every_point_from_the_archive(call, store, study, workplace, empty_database):
    long_trial(directory := study.trial())
    whole = journal_points(directory)
    sync(study.folder, store)
    prune(call, store, "--yes")
    shutil.copy(empty_database, workplace / "new.db")
    new = open_store(f"sqlite:///{workplace / 'new.db'}")
    assert sync(study.folder, new).points_sent > STEPS
    assert stored_points(new, only_trial(new)) == whole


def test_what_runs_may_go_on_or_is_a_verdict_stays(call, store, study, workplace):
    for seed, outcome in enumerate((None, "killed", "oom")):
        long_trial(study.trial(seed=seed), outcome)
    unfinished = StudyFolder(workplace / "outputs", experiment="unfinished")
    long_trial(unfinished.trial())
    sync(workplace / "outputs", store)
    for run in runs_of_kind(store, names.KIND_TRIAL):
        if run.data.tags[names.SEED] == "0":
            store.client.update_run(run.info.run_id, status="RUNNING")
    (parent,) = runs_of_kind(store, names.KIND_STUDY, "unfinished")
    store.client.update_run(parent.info.run_id, status="RUNNING")
    assert long_ones(store) == []
    prune(call, store, "--yes", "--only", "points")
    for directory in workplace.glob("outputs/*/*/*-*"):
        experiment, seed = directory.parent.parent.name, directory.name[-1]
        (run,) = [r for r in runs_of_kind(store, names.KIND_TRIAL, experiment) if r.data.tags[names.SEED] == seed]
        assert stored_points(store, run) == journal_points(directory)


def test_only_what_ended_before_the_date(store, study):
    long_trial(study.trial())
    sync(study.folder, store)
    assert long_ones(store, only_trial(store).info.end_time) == []
    assert len(long_ones(store, only_trial(store).info.end_time + 1)) == 1


def test_a_death_between_two_trials_leaves_each_whole_or_thinned(store, study):
    for seed in range(3):
        long_trial(study.trial(seed=seed))
    sync(study.folder, store)
    runs = long_ones(store)
    thinning = thin(store, runs, shape_of)
    next(thinning)
    thinning.close()
    histories = metric_histories(store, [run.run_id for run in runs], "lr")
    lengths = sorted(len(steps) for steps, _ in histories.values())
    assert lengths[0] <= KEPT_AT_MOST
    assert lengths[1:] == [STEPS, STEPS]
    assert len(long_ones(store)) == 2


def test_the_shape_of_a_curve_with_gaps():
    steps = np.arange(10_000)
    values = np.sin(steps / 50.0)
    values[5000:5100] = np.nan
    kept = shape_of(steps, values)
    assert kept.size <= KEPT_AT_MOST
    assert {0, 5000, 9999} <= set(kept.tolist())


def test_a_journal_that_is_a_link_to_nowhere_is_named_and_the_others_are_found(study):
    long_trial(study.trial())
    lost = study.trial(seed=1) / "journal.jsonl"
    lost.symlink_to(study.folder / "gone")
    found, refused = old_journals(study.folder, time.time_ns() // 1_000_000 + 1)
    assert found == [study.folder / "control-0"]
    assert refused == [f"can't read {lost}: No such file or directory"]


class TestCommand:
    def test_a_server_is_refused_with_the_command_for_its_machine(self, call, workplace, monkeypatch):
        from fnostab.tracking import Store
        from fnostab.tracking.read import watching

        monkeypatch.setattr(watching, "open_store", lambda uri: Store("http://127.0.0.1:5000", None))
        status, _, err = call("prune", "--older-than", "90d", "--yes", "--tracking-uri", "http://127.0.0.1:5000")
        assert status == 2
        assert "on its own machine, `fnostab prune --only points --tracking-uri DATABASE`" in err
        assert "`--only journals` archives the journals" in err

    @pytest.mark.parametrize("text", ["soon", "2026-13-01", "-5", "9" * 30, ""])
    def test_a_date_that_is_none(self, call, workplace, text):
        status, _, err = call("prune", "--older-than", text)
        assert status == 2
        assert "is not accepted: give a date, such as " in err

    def test_a_date_to_come(self, call, workplace):
        assert "is in the future" in call("prune", "--older-than", "2999-01-01")[2]

    def test_a_small_journal_would_only_grow(self, call, workplace):
        write_trial(directory := StudyFolder(workplace / "outputs").trial())
        assert "0 journals of that age" in call("prune", "--older-than", "0d", "--only", "journals", "--yes")[1]
        assert (directory / "journal.jsonl").exists()

    def test_a_journal_in_use_is_left_and_named(self, call, workplace):
        study = StudyFolder(workplace / "outputs")
        long_trial(directory := study.trial())
        with Journal(directory):
            status, out, err = call("prune", "--older-than", "0d", "--only", "journals", "--yes")
        assert status == 2
        assert "0 journals in outputs archived" in out
        assert "is in use by another process" in err
        assert (directory / "journal.jsonl").exists()
