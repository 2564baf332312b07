"""The example `returns`: its script makes the table, and the answer that its page shows is given today."""

import csv
import re
import shutil
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "returns"


def test_the_page_shows_what_decide_says_of_the_table(call, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(EXAMPLE, tmp_path / "returns"))
    monkeypatch.setenv("COLUMNS", "300")
    status, out, err = call("decide", "--runs", "runs.yaml")
    assert status == 0, err
    page = " ".join((EXAMPLE / "README.md").read_text().split())
    answers = re.findall(r"`(\w+ (?:helps|does not help): [^`]+)`", page)
    assert len(answers) == 2
    assert all(answer in " ".join(out.split()) for answer in answers), out
    assert (EXAMPLE / "returns.csv").read_text().splitlines()[1] in page


def test_the_script_makes_such_a_table(call, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(EXAMPLE, tmp_path / "returns"))
    subprocess.run([sys.executable, "reinforce.py", "--seeds", "3", "--iterations", "4"], check=True)
    with open("returns.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["variant"], row["seed"]) for row in rows] == [
        (variant, seed) for variant in ("plain", "baseline", "clipped") for seed in "012"
    ]
    assert all(1 <= float(row["return"]) <= 200 for row in rows)
    status, out, err = call("decide", "--runs", "runs.yaml")
    assert status == 0, err
    assert "9 runs" in out
