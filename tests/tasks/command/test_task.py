"""The task ``command``: what it refuses of a study file, and what it gives to the engine."""

import sys
from pathlib import Path

import pytest

from fnostab.errors import ConfigError, LaunchError
from fnostab.record.settings import digest
from fnostab.study.file import read_study_file
from fnostab.study.study import load_study
from fnostab.tasks.command.task import Command

ROOT = Path(__file__).parent.parent.parent.parent
EXAMPLE = ROOT / "examples" / "plain_loop"
STUDY = """name: plain
description: Does it learn?
command: {command}
metric: {{name: val/score, higher_is_better: {higher}, of: last}}
outcome: {outcome}
defaults: {{lr: 0.1}}
control: control
arms:
  control: {{}}
"""


@pytest.fixture
def study_file(tmp_path):
    def write(command="python train.py --lr {lr} --seed {seed}", higher="false", outcome="{}"):
        (tmp_path / "train.py").touch()
        (tmp_path / "study.yaml").write_text(STUDY.format(command=command, higher=higher, outcome=outcome))
        return read_study_file(str(tmp_path / "study.yaml"))

    return write


def test_a_trial_starts_in_the_folder_of_its_study_with_one_word_a_value(study_file, tmp_path):
    task = Command(study_file())
    argv = task.argv({"lr": "; rm -rf x"}, "control", 3, Path("/trial"))
    assert argv == ("python", "train.py", "--lr", "; rm -rf x", "--seed", "3")
    assert task.working_directory() == tmp_path


@pytest.mark.parametrize(
    ("one", "other", "word"),
    [(1.0, 1, "1"), (3e5, 300000, "300000"), (-0.0, 0, "0"), (1e-05, 0.00001, "1e-05"), (1e22, 1e22, "1e+22")],
)
def test_a_number_is_one_number_however_it_is_written(study_file, one, other, word):
    task = Command(study_file())
    settings = [task.resolve([{}, {"lr": value}], None) for value in (one, other)]
    assert len({digest(task.identity(each)) for each in settings}) == 1
    assert {task.argv(each, "control", 0, Path("/trial"))[3] for each in settings} == {word}


def test_what_the_recorder_says_after_a_failure_is_the_study_file_s_and_part_of_the_identity(study_file, tmp_path):
    stopped = Command(study_file())
    path = tmp_path / "study.yaml"
    path.write_text(f"after_failure: continue\n{path.read_text()}")
    goes_on = Command(read_study_file(str(path)))
    assert (stopped.after_failure({}), goes_on.after_failure({})) == ("stop", "continue")
    assert digest(stopped.identity({"lr": 1.0})) != digest(goes_on.identity({"lr": 1.0}))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("control: control", "", "control is missing"),
        (
            "name: val/score",
            "name: loss",
            r"line 4: no 'loss' is recorded: rec.validation\(i, loss=...\) records val/loss",
        ),
        (
            "outcome: {}",
            "outcome: {baselin: 1}",
            r"'outcome.baselin' \(did you mean 'baseline'\?\); accepted: baseline",
        ),
        ("name: plain", "name: plain\nseeds: [0, -1]", "line 2: seeds.1=-1 is not accepted: input should be greater"),
        ("  control: {}", "  control: {}\n  ../x: {}", "arms: the name '../x' is not accepted"),
        ("command: python", "task: ptychography\ncommand: python", "expected one of task and command, got both"),
        ("name: plain", "name: plain\nafter_failure: never", "after_failure='never' is not accepted: .*'continue'"),
    ],
)
def test_what_is_wrong_in_a_study_file_is_named(study_file, tmp_path, old, new, said):
    study_file()
    path = tmp_path / "study.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=said):
        load_study(str(path))


def test_another_number_is_another_identity(study_file):
    task = Command(study_file())
    given = (1, 1.5, 2**53 + 1, 2**53, 2**53 + 2.0)
    assert len({digest(task.identity(task.resolve([{}, {"lr": value}], None))) for value in given}) == len(given)


def test_changed_code_is_another_identity(study_file, tmp_path):
    before = Command(study_file()).identity({"lr": 0.1})
    file = study_file()
    (tmp_path / "train.py").write_text("other")
    assert Command(file).identity({"lr": 0.1}) != before


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("python train.py --seed {seed}", 6),
        ("python train.py --lr {lr} {width} --seed {seed}", 3),
        ('"python train.py --lr {lr} --seed {seed} --note \'a"', 3),
    ],
)
def test_what_is_wrong_is_named_with_its_line(study_file, command, line):
    with pytest.raises(ConfigError, match=f"study.yaml, line {line}: "):
        Command(study_file(command))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("no-such-program", "no program 'no-such-program' on PATH"),
        ("train.py", "write ./train.py"),
        ("./train.py", "chmod"),
    ],
)
def test_a_program_that_is_not_there_is_refused_before_anything_starts(study_file, program, message):
    task = Command(study_file(f"{program} --lr {{lr}} --seed {{seed}}"))
    with pytest.raises(LaunchError, match=message):
        task.check_start([], here=True, lockstep=False)
    task.check_start([], here=False, lockstep=False)


@pytest.mark.parametrize("of", ["best", "last"])
def test_the_baseline_is_held_against_the_value_that_the_metric_takes(study_file, tmp_path, of):
    study_file(outcome="{baseline: 0.6931}")
    path = tmp_path / "study.yaml"
    path.write_text(path.read_text().replace("of: last", f"of: {of}"))
    assert load_study(str(path)).trials("e", tmp_path)[0].spec.rules.of == of


def test_a_program_on_path_is_accepted(study_file):
    task = Command(study_file(f"{sys.executable} train.py --lr {{lr}} --seed {{seed}}"))
    task.check_start([], here=True, lockstep=False)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("./nowhere", "no program .*/nowhere$"),
        ("~/train.py", "no program .*/~/train.py; no shell expands ~"),
        ("./train.py", "train.py is not executable: chmod"),
    ],
)
def test_a_program_that_can_not_be_started_is_refused(study_file, program, said):
    task = Command(study_file(f"{program} --lr {{lr}} --seed {{seed}}"))
    with pytest.raises(LaunchError, match=said):
        task.check_start([], here=True, lockstep=False)


def test_the_page_shows_the_example_as_it_is():
    page = (ROOT / "docs" / "own.md").read_text()
    for name in ("train.py", "study.yaml"):
        assert (EXAMPLE / name).read_text() in page
