"""Artifacts of a SQLite store lie beside it: in every folder, and after it was moved or copied."""

import shutil
from pathlib import Path

import pytest
from mlflow.utils.file_utils import local_file_uri_to_path

from fnostab.doctor import State, look, records_checks
from fnostab.errors import TrackingError
from fnostab.tracking import existing_store, link_project_run, log_verdict, newest_study, open_store
from fnostab.tracking.store.store import experiment_id


@pytest.fixture
def project(make_store, tmp_path, monkeypatch):
    """A function that makes a folder with a database and a run with an artifact, and goes there."""

    def make(name):
        make_store()
        folder = tmp_path / name
        folder.mkdir()
        shutil.move(tmp_path / "mlflow.db", folder)
        monkeypatch.chdir(folder)
        write(open_store())
        return folder

    return make


def write(store, experiment="x"):
    """Log an artifact to a new run: MLflow remembers in this process where those of a run go."""
    run = store.client.create_run(experiment_id(store, experiment))
    store.client.log_text(run.info.run_id, "written", "note.txt")


def artifacts_finding(mend=False):
    """What doctor says of the artifacts of the store in the working directory."""
    return dict(
        look(each for each in records_checks(None, Path("outputs"), mend) if each.name in ("records", "artifacts"))
    )["artifacts"]


def notes(folder):
    return {path for path in folder.rglob("note.txt") if path.read_text() == "written"}


@pytest.mark.parametrize("name", ["what?", "100%", "a%20b", "a b#c", "ä"])
def test_a_folder_may_have_any_name(project, name, tmp_path):
    folder = project(name)
    (note,) = notes(tmp_path)
    assert note.is_relative_to(folder / "mlruns" / "x")
    assert {path.name for path in tmp_path.iterdir()} == {name}
    assert existing_store(open_store().uri).client.get_experiment_by_name("x") is not None


def test_artifacts_lie_beside_the_database_wherever_the_process_is(make_store, tmp_path, monkeypatch):
    store = make_store()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    run = store.client.create_run(experiment_id(store, "x"))
    store.client.log_text(run.info.run_id, "written", "note.txt")
    assert notes(tmp_path / "mlruns")
    assert not notes(elsewhere)


@pytest.mark.parametrize("how", [shutil.move, shutil.copytree])
def test_a_project_that_moved_is_noticed_and_mended(project, how, tmp_path, monkeypatch):
    before, after = project("before"), tmp_path / "after"
    how(before, after)
    left = notes(before)
    monkeypatch.chdir(after)
    store = open_store()
    experiment = store.client.get_experiment_by_name("x").experiment_id
    for use in (lambda: experiment_id(store, "x"), lambda: log_verdict(store, experiment, [], "GOLD", {}, "text")):
        with pytest.raises(TrackingError, match=r"was moved or copied: .*`fnostab doctor --mend --tracking-uri sqlite"):
            use()
    found = artifacts_finding()
    assert found.state is State.FAILED
    assert f"moved or copied from {before}: " in found.text
    mended = artifacts_finding(mend=True)
    assert mended.state is State.OK
    assert f"from {before} to {after}/mlruns" in mended.text
    (run,) = store.client.search_runs([experiment])
    assert Path(local_file_uri_to_path(run.info.artifact_uri), "note.txt") in notes(after)
    write(store)
    assert len(notes(after)) == 2
    assert notes(before) == left
    assert artifacts_finding().text == "in the folder that the database names"


def test_a_study_whose_project_moved_says_so_before_it_misses_its_record(parent, tmp_path, monkeypatch):
    after = tmp_path / "after"
    after.mkdir()
    for name in ("mlflow.db", "mlruns"):
        shutil.move(tmp_path / name, after)
    monkeypatch.chdir(after)
    store = open_store()
    experiment = store.client.get_experiment_by_name("stage_a").experiment_id
    with pytest.raises(TrackingError, match=r"was moved or copied: .*`fnostab doctor --mend"):
        newest_study(store, experiment)


def test_an_experiment_with_a_slash_in_its_name_moves_too(project, tmp_path, monkeypatch):
    before, after = project("before"), tmp_path / "after"
    write(open_store(), "team/of one/x")
    shutil.move(before, after)
    monkeypatch.chdir(after)
    with pytest.raises(TrackingError, match="artifacts of experiment 'team/of one/x' would still go to"):
        experiment_id(open_store(), "team/of one/x")
    assert artifacts_finding(mend=True).state is State.OK
    write(open_store(), "team/of one/x")
    assert len(notes(after / "mlruns" / "team" / "of one" / "x")) == 2
    assert not before.exists()


def test_of_a_database_that_was_copied_alone_doctor_says_what_is_not_here(project, tmp_path, monkeypatch):
    before, after = project("before"), tmp_path / "after"
    after.mkdir()
    shutil.copy(before / "mlflow.db", after)
    monkeypatch.chdir(after)
    mended = artifacts_finding(mend=True)
    assert mended.state is State.WARNING
    assert "of 1 run the artifacts are not here: copy them" in mended.text


def test_an_address_that_somebody_chose_is_left_alone(make_store, tmp_path):
    store = make_store()
    (tmp_path / "disk/mlruns/x").mkdir(parents=True)
    for name in ("disk/mlruns/x", "disk/of/ours"):
        chosen = store.client.create_experiment(name.replace("/", "."), str(tmp_path / name))
        assert experiment_id(store, name.replace("/", ".")) == chosen


@pytest.mark.parametrize("named", ["deleted", "0" * 32, "no id at all"])
def test_a_run_of_mlflow_run_that_is_gone_ends_nothing(store, parent, named, monkeypatch):
    run = store.client.create_run("0").info.run_id
    store.client.delete_run(run)
    monkeypatch.setenv("MLFLOW_RUN_ID", run if named == "deleted" else named)
    assert link_project_run(store, parent) is False
