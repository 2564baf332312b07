"""Commands where there is nothing to work on: they say where they looked, and leave nothing behind."""

import shlex
from pathlib import Path

import pytest
from trial_records import trial_spec

from fnostab.record import names
from fnostab.record.journal import Journal
from fnostab.tracking import open_store


@pytest.fixture
def store(workplace):
    return open_store()


@pytest.fixture
def nowhere(tmp_path, environment, fnostab):
    """A function that calls a command in an empty folder with an empty home: (status, stderr, files left)."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()

    def run(*arguments, **more):
        answer = fnostab(tmp_path / "here", *arguments, HOME=str(tmp_path / "home"), **more)
        return answer.returncode, answer.stderr, [*(tmp_path / "here").rglob("*"), *(tmp_path / "home").rglob("*")]

    run.folder = tmp_path / "here"
    return run


@pytest.mark.parametrize(
    "arguments",
    [
        ("decide",),
        ("report", "--experiment", "stage_a"),
        ("export", "trials.csv"),
        ("ui",),
        ("watch",),
        ("replay",),
        ("run", "stage_b", "--from", "stage_a"),
    ],
    ids=" ".join,
)
def test_without_records_nothing_is_made_and_the_place_is_named(nowhere, arguments):
    status, err, left = nowhere(*arguments)
    assert (status, left) == (2, [])
    assert f"no tracking database at {nowhere.folder}/mlflow.db" in err
    if arguments[0] in ("watch", "replay"):
        assert f"{nowhere.folder}/outputs" in err


@pytest.mark.parametrize("arguments", [("sync", "."), ("sync", "outputs", "--follow"), ("doctor",)], ids=" ".join)
def test_nothing_is_made_where_there_is_nothing_to_send_or_check(nowhere, arguments):
    status, err, left = nowhere(*arguments)
    assert left == []
    if arguments[0] == "sync":
        assert status == 2
        assert str(nowhere.folder) in err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("run", "stage_a", "--arms", "contrl"), "did you mean 'control'"),
        (("run", "stage_a", "--seed", "3"), "did you mean --seeds"),
        (("run", "stage_a", "seeds=10"), "write --seeds 10"),
        (("run", "stage_a", "--jobz", "2"), "did you mean --jobs"),
        (("train", "stage_a", "--arm", "contrl"), "did you mean 'control'"),
        (("replay", "."), "no black box in .: failed trials of the built-in task keep one"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
def test_a_slip_is_refused_before_torch_is_loaded(nowhere, arguments, hint):
    status, err, left = nowhere(*arguments, PYTHONPROFILEIMPORTTIME="1")
    assert (status, left) == (2, [])
    said = [line for line in err.splitlines() if not line.startswith("import time:")]
    assert hint in said[-1]
    imported = {line.rpartition("|")[2].strip() for line in err.splitlines()}
    assert "fnostab.cli" in imported
    assert not imported & {"torch", "mlflow"}


def test_the_newest_study_is_named_where_none_was(store, record_study, call):
    record_study(store, "first", {"control": 0})
    record_study(store, "second", {"control": 0})
    for command, todo in ((("decide",), "judge"), (("report",), "judge"), (("export", "trials.csv"), "export")):
        status, _, err = call(*command)
        assert status == 2
        assert err.startswith(f"error: say what to {todo}: --experiment second, the newest in sqlite:///")


def test_trials_that_failed_are_listed_with_the_command_that_replays_them(workplace, call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    for seed, ended in enumerate(["collapsed", "converged", "nonfinite"]):
        folder = workplace / "outputs" / "stage_a" / "0123456789abcdef" / f"control-{seed}"
        trial_spec({}, seed=seed, shared_dir=workplace).write(folder / "trial.json")
        with Journal(folder) as journal:
            journal.event(names.OUTCOME_EVENT, {"outcome": ended, "failure_step": None if seed == 1 else 7 + seed})
        if seed != 1:
            (folder / "artifacts" / names.BLACK_BOX).mkdir(parents=True)
    status, out, _ = call("replay")
    assert status == 0
    heading, first, second = out.splitlines()
    assert heading == f"failed, in {workplace}/outputs:"
    assert first.split()[:5] == ["control-0", "collapsed", "at", "step", "7"]
    assert second.split()[:5] == ["control-2", "nonfinite", "at", "step", "9"]
    assert Path(shlex.split(second)[-1]) == Path("outputs/stage_a/0123456789abcdef/control-2")


def test_without_journals_those_of_the_newest_study_in_the_store_are_listed(store, record_study, workplace, call):
    record_study(store, "mine", {"control": 1})
    (workplace / "outputs").rename(workplace / "gone")
    status, out, _ = call("replay")
    assert status == 0
    heading, line = out.splitlines()
    assert heading.startswith("failed, of experiment mine in sqlite:///")
    experiment = store.client.get_experiment_by_name("mine").experiment_id
    (run,) = store.client.search_runs([experiment], f"tags.`{names.OUTCOME}` = 'collapsed'")
    assert line.split()[-3:] == ["fnostab", "replay", run.info.run_id]


def test_a_dry_run_for_slurm_needs_no_slurm(nowhere):
    command = ("run", "stage_a", "--arms", "control", "--seeds", "2", "--launcher", "slurm")
    status, err, left = nowhere(*command, PATH="/nowhere")
    assert (status, left) == (2, [])
    assert "no Slurm here: sbatch" in err
    status, err, left = nowhere(*command, "--dry-run", PATH="/nowhere")
    assert (status, err, left) == (0, "", [])


def test_a_study_that_can_not_be_estimated_says_so_in_one_line(call, workplace):
    Path("script.py").touch()
    Path("own.yaml").write_text(
        "name: own\ndescription: own\ncommand: python script.py --seed {seed} --lr {lr}\ncontrol: a\n"
        "defaults: {lr: 1.0}\narms: {a: {}, b: {lr: 2.0}}\n"
    )
    status, out, err = call("estimate", "own.yaml")
    assert (status, out) == (2, "")
    assert err.startswith("error: a study of task command can't be estimated: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(("seeds", "status"), [("403", 2), ("403,", 0), ("2", 0)])
def test_a_count_that_is_a_seed_of_the_study_is_not_taken_for_a_count(call, workplace, seeds, status):
    (workplace / "listed.yaml").write_text(
        "name: listed\ndescription: Which?\ncommand: true --seed {seed}\nseeds: [400, 403]\ncontrol: plain\n"
        "arms: {plain: {}}\n"
    )
    found, _, err = call("run", "listed.yaml", "--seeds", seeds, "--dry-run")
    assert found == status
    assert ("for seed 403 alone write --seeds 403, with a comma after it" in err) == (status == 2)
