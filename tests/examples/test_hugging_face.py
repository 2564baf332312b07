"""The example `hugging_face`, run as a stranger does: few seeds and steps."""

import re
import shutil
from pathlib import Path

import pytest

from fnostab.record.journal_outcomes import read_recorded

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "hugging_face"


def test_two_lines_are_added_to_the_script():
    lines = (EXAMPLE / "train.py").read_text().splitlines()
    added = [line for line in lines if re.search("fnostab|StabilityCallback", line)]
    assert [line.partition("#")[2] for line in added] == [" 1 of 2 lines added", " 2 of 2"]


@pytest.mark.slow
def test_it_runs_and_is_judged(fnostab, workplace):
    folder = workplace / "example"
    shutil.copytree(EXAMPLE, folder)
    shutil.copy(workplace / "mlflow.db", folder)
    small = ("--seeds", "1", "--arms", "control,warmed", "--jobs", "2", "--set", "steps=42")
    run = fnostab(folder, "run", "study.yaml", *small)
    assert run.returncode == 0, run.stdout + run.stderr
    for arm, rates in (("control", [0.014, 0.014 * 41 / 42]), ("warmed", [0.0, 0.014 / 100])):
        (trial,) = folder.glob(f"outputs/backwards/*/{arm}-0")
        recorded = read_recorded(trial)
        assert recorded.reached_the_end
        assert {"train/loss", "grad_norm/total", "val/loss", "val/accuracy"} <= recorded.curves.keys()
        assert len(recorded.curves["grad_norm/total"]) == 42
        assert list(recorded.curves["lr"].values())[:2] == pytest.approx(rates)
        assert list(recorded.curves["val/loss"]) == [39, 41]
    decided = fnostab(folder, "decide", "--experiment", "backwards")
    assert "warmed: undecided, too few seeds to tell" in decided.stdout, decided.stderr
