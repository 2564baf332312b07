"""`fnostab studies`: the list, one explained, one to begin with."""

import pytest

from fnostab.study.study import load_study
from fnostab.tasks.registry import built_in_studies


def test_the_built_in_studies_are_listed(call):
    status, out, err = call("studies")
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()[1:] if line[:1].strip(" `")] == list(built_in_studies())
    assert "clip_sweep           14" in out


def test_one_is_explained_by_what_its_arms_change(call):
    status, out, _ = call("studies", "show", "stage_a", "--profile", "small")
    assert status == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["control", "control"] in lines
    assert ["arch_fix", "architecture", "model.architecture", "=", "stable_hybrid"] in lines
    assert ["execution.gradient_clip_val", "=", "0.01"] in lines
    assert "10 seeds; decides on failures and val_loss_best" in out
    assert "control in the small profile: learning rate 0.015, blocks 3, epochs 16" in out


def test_a_new_one_can_be_run_as_it_is(call, workplace):
    status, out, _ = call("studies", "new", "mine.yaml")
    assert (status, out.splitlines()[0]) == (0, "wrote mine.yaml")
    study = load_study("mine.yaml", "small")
    assert study.file.name == "mine"
    assert list(study.arms) == ["control", "slow_0.001", "slow_0.003", "clipped"]
    assert len(study.trials("mine", workplace)) == 20


def test_a_new_one_of_a_program_has_its_script_and_an_answer(call, workplace):
    status, out, _ = call("studies", "new", "mine.yaml", "--program")
    assert (status, out.splitlines()[0]) == (0, "wrote mine.yaml and mine.py")
    status, out, err = call("run", "mine.yaml", "--decide")
    assert status == 0, err
    assert "clipped helps: 0 of 8 failed, 4 of 8 of control" in out


def test_a_script_that_is_there_is_not_overwritten(call, workplace):
    (workplace / "mine.py").write_text("kept")
    status, _, err = call("studies", "new", "mine.yaml", "--program")
    assert (status, err) == (2, "error: mine.py exists already: name another file\n")
    assert ((workplace / "mine.py").read_text(), list(workplace.glob("*.yaml"))) == ("kept", [])


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("taken.yaml", "taken.yaml exists already: name another file"),
        ("mine.txt", "mine.txt is not accepted: the name of a study file ends in .yaml"),
        ("absent/mine.yaml", "can't write absent/mine.yaml: No such file or directory"),
        ("a b.yaml", "'a b' can't be the name of a study"),
    ],
)
def test_what_can_not_be_written(call, workplace, file, message):
    (workplace / "taken.yaml").write_text("kept")
    status, _, err = call("studies", "new", file)
    assert (status, err.count("\n")) == (2, 1)
    assert message in err
    assert sorted(path.name for path in workplace.glob("*.yaml")) == ["taken.yaml"]
    assert (workplace / "taken.yaml").read_text() == "kept"


@pytest.mark.parametrize("name", ["mine", "mine.py", "mine.json"])
def test_the_study_file_of_that_name_is_suggested(call, workplace, name):
    (workplace / "mine.yaml").write_text("")
    status, _, err = call("studies", "show", name)
    assert (status, err[:50]) == (2, f"error: no study '{name}' (did you mean 'mine.yaml'?); built"[:50])


def test_a_study_that_does_not_exist(call):
    status, _, err = call("studies", "show", "stage_z")
    assert status == 2
    assert "no study 'stage_z' (did you mean 'stage_b'?); built in: clip_sweep" in err
