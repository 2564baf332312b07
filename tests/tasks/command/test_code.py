"""The code that a command runs is a part of its identity."""

import pytest

from fnostab.errors import ConfigError
from fnostab.record.ignored_seed import same_curves
from fnostab.record.journal import Journal
from fnostab.study.study import load_study
from fnostab.tasks.command import code
from fnostab.tasks.command.code import code_hashes
from fnostab.tasks.command.template import parse

COMMAND = parse("python train.py --lr {lr} --seed {seed}")


@pytest.fixture
def folder(tmp_path):
    home = tmp_path / "home"
    (home / "src").mkdir(parents=True)
    (home / "train.py").write_text("1")
    (home / "src" / "a.py").write_text("2")
    (home / "src" / "b.py").write_text("3")
    return home


def test_files_of_the_template_and_of_the_globs_count(folder):
    assert list(code_hashes(COMMAND, [], folder)) == ["train.py"]
    assert list(code_hashes(COMMAND, ["src/*.py", "**/*.py"], folder)) == ["src/a.py", "src/b.py", "train.py"]


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("python -m src.a {seed}", ["src/a.py"]),
        ("python -m src {seed}", ["src/__main__.py"]),
        ("python -m json.tool {seed}", []),  # a module that is not here
        ("python {home}/train.py {seed}", ["train.py"]),
        ("python {home}/../elsewhere.py {seed}", ["{home}/../elsewhere.py"]),
        ("{home}/../python {seed}", []),  # no script: an interpreter
        ("python train.py --config=src/a.py data={home}/../table.bin {seed}", ["src/a.py", "train.py"]),
        ("python train.py --seed={seed} =x = --", ["train.py"]),
    ],
)
def test_a_file_is_found_however_the_command_names_it(folder, command, names):
    for path in ("../elsewhere.py", "../python", "../table.bin", "src/__main__.py"):
        (folder / path).write_text("6")
    found = code_hashes(parse(command.replace("{home}", str(folder))), [], folder)
    assert list(found) == [name.replace("{home}", str(folder)) for name in names]


def test_a_file_that_a_setting_names_is_a_part_of_the_arms_identity(folder, monkeypatch):
    (folder / "study.yaml").write_text(
        "name: s\ndescription: '?'\ncommand: python train.py --config {config} --seed {seed}\ncontrol: control\n"
        "defaults: {config: src/a.py}\narms: {control: {}, other: {config: src/b.py}, none: {config: none}}\n"
    )

    def hashes():
        return load_study(str(folder / "study.yaml")).spec("e").config_hashes

    before = hashes()
    assert hashes() == before
    (folder / "src" / "b.py").write_text("7")
    after = hashes()
    assert {arm for arm in before if before[arm] != after[arm]} == {"other"}
    monkeypatch.setattr(code, "MOST_BYTES", 1)  # larger ones are data
    (folder / "src" / "b.py").write_text("88")
    of_data = hashes()
    (folder / "src" / "b.py").write_text("99")
    assert hashes() == of_data


def test_changed_code_and_renamed_code_change_the_hash(folder):
    before = code_hashes(COMMAND, ["src/*.py"], folder)
    assert before == code_hashes(COMMAND, ["src/*.py"], folder)
    (folder / "src" / "a.py").rename(folder / "src" / "c.py")
    renamed = code_hashes(COMMAND, ["src/*.py"], folder)
    (folder / "train.py").write_text("4")
    assert before != renamed != code_hashes(COMMAND, ["src/*.py"], folder) != before


def test_links_lead_to_files_inside_the_folder_only(folder):
    (folder.parent / "outside.py").write_text("5")
    (folder / "src" / "out.py").symlink_to(folder.parent / "outside.py")
    (folder / "src" / "in.py").symlink_to(folder / "train.py")
    assert list(code_hashes(COMMAND, ["src/*.py"], folder)) == ["src/a.py", "src/b.py", "src/in.py", "train.py"]


@pytest.mark.parametrize(
    ("globs", "message"),
    [
        (["none/*.py"], "names no file"),
        (["../*.py"], "leads out"),
        (["/etc/*"], "leads out"),
        ([""], "not a pattern|no file"),
    ],
)
def test_a_pattern_that_can_not_be_meant_is_refused(folder, globs, message):
    with pytest.raises(ConfigError, match=message):
        code_hashes(COMMAND, globs, folder)


def test_it_is_bounded(folder, monkeypatch):
    monkeypatch.setattr(code, "MOST_FILES", 1)
    with pytest.raises(ConfigError, match="more than 1 files"):
        code_hashes(COMMAND, ["src/*.py"], folder)
    monkeypatch.setattr(code, "MOST_FILES", 10)
    monkeypatch.setattr(code, "MOST_BYTES", 1)
    with pytest.raises(ConfigError, match="at most"):
        code_hashes(COMMAND, ["src/*.py"], folder)


def test_identical_curves_under_two_seeds_are_found(tmp_path):
    def trial(arm, seed, losses):
        with Journal(tmp_path / f"{arm}-{seed}") as journal:
            for step, loss in enumerate(losses):
                journal.record(step, {"train/loss": loss, "time": seed})
        return (arm, seed), tmp_path / f"{arm}-{seed}"

    trials = dict(
        [trial("a", 0, [1, 2]), trial("a", 1, [1, 3]), trial("a", 2, [1, 2]), trial("b", 0, [1, 2]), trial("b", 1, [])]
    )
    (tmp_path / "b-1" / "journal.jsonl").touch()
    assert same_curves(trials) == [("a", 0, 2)]
