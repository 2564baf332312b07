"""`python -m benchmarks`: what its subjects give can be read by people and programs. No times are judged here."""

import ast
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as suite
from benchmarks.timing import KEYS, compared, in_turns, row, skipped, table, write_section

ROOT = Path(__file__).parent.parent
OURS = ("fnostab", "benchmarks", "docs")


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("before\n<!-- data: made by python -m benchmarks -->\nold\n<!-- end of data -->\nafter\n")
    return path


def test_a_module_that_measures_is_a_subject():
    measuring = {
        path.stem
        for path in (ROOT / "benchmarks").glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == "measure"
    }
    assert set(suite.SUBJECTS) == measuring


def test_the_command_writes_rows_with_their_machine_and_fills_the_page(page, tmp_path, monkeypatch, capsys):
    answer = tmp_path / "performance.json"
    monkeypatch.setattr(sys, "argv", ["x", "--quick", "--only", "data", "--json", str(answer), "--markdown", str(page)])
    with pytest.raises(SystemExit) as left:
        suite.main()
    assert left.value.code == 0
    written = json.loads(answer.read_text())
    assert written.keys() == {
        "cpu", "cores", "memory_bytes", "gpu", "python", "packages", "commit", "date", "command", "rows"
    }  # fmt: skip
    rows = written["rows"]["data"]
    assert table(rows) in capsys.readouterr().out
    assert all(tuple(one) == KEYS for one in rows)
    for one in rows[1:]:
        assert one["of"] == rows[0]["variant"]
        assert one["ratio"] == pytest.approx(one["value"] / rows[0]["value"])
    text = page.read_text()
    assert table(rows) in text
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")


def test_an_unknown_subject_is_refused_with_those_that_are_known(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", "--only", "everything"])
    with pytest.raises(SystemExit):
        suite.main()
    assert f"accepted: {', '.join(suite.SUBJECTS)}" in capsys.readouterr().err


def test_works_take_turns_and_the_first_rounds_do_not_count():
    done = []
    times = in_turns({name: lambda name=name: done.append(name) for name in "ab"}, rounds=2, warm_up=1)
    assert "".join(done) == "ababab"
    assert {name: len(found) for name, found in times.items()} == {"a": 2, "b": 2}


def test_ratios_are_to_the_variant_that_is_named():
    rows = compared("step", {"slow": 30.0, "fast": 10.0}, "ms", "fast")
    assert rows == [row("step", "slow", 30.0, "ms", 3.0, "fast"), row("step", "fast", 10.0, "ms")]


def test_a_table_shows_what_was_skipped_and_why():
    shown = table([row("step", "slow", 1234.5, "ms", 0.0123, "fast"), skipped("step on a GPU", "torch sees none")])
    assert shown.splitlines()[2:] == [
        "| step | slow | 1,234 ms | 1.23% | fast |",
        "| step on a GPU | skipped: torch sees none |  |  |  |",
    ]


def test_a_page_without_the_marks_is_refused(page):
    with pytest.raises(SystemExit, match="no section between"):
        write_section(page, "other", "text", "python -m benchmarks")


@pytest.mark.parametrize("folder", ["benchmarks", "docs", "entrypoints", "examples", "results"])
def test_what_scripts_import_of_the_project_is_there(folder):
    """Few of them run in a test, and no type checker reads them."""
    missing = []
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or (node.module or "").partition(".")[0] not in OURS:
                continue
            module = importlib.import_module(node.module)
            for name in (alias.name for alias in node.names):
                if not hasattr(module, name) and importlib.util.find_spec(f"{node.module}.{name}") is None:
                    missing.append(f"{path}: {node.module}.{name}")
    assert missing == []
