"""The example examples/language_model: a LightningCLI training as a study, with few steps."""

import json
import math
import shutil
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

EXAMPLE = Path(__file__).parents[2] / "examples" / "language_model"


def read(path):
    return [json.loads(line.partition(" ")[2]) for line in path.read_text().splitlines()]


@pytest.fixture
def folder(workplace):
    shutil.copytree(EXAMPLE, workplace, dirs_exist_ok=True, ignore=shutil.ignore_patterns("outputs", "mlflow.db"))
    return workplace


def test_the_bounds_of_the_study_are_what_counts_of_characters_and_of_pairs_reach():
    text = (EXAMPLE / "shakespeare.txt").read_text()
    cut, size = int(0.9 * len(text)), len(set(text))
    seen, held_out = text[:cut], text[cut:]
    one, two = Counter(seen), Counter(pairwise(seen))
    pairs = list(pairwise(held_out))
    of_one = -sum(math.log((one[b] + 1) / (cut + size)) for b in held_out) / len(held_out)
    of_two = -sum(math.log((two[a, b] + 1) / (one[a] + size)) for a, b in pairs) / len(pairs)
    outcome = yaml.safe_load((EXAMPLE / "study.yaml").read_text())["outcome"]
    assert outcome == {"baseline": round(of_one, 3), "failed": {"above": round(of_two, 3)}}


@pytest.mark.slow
def test_each_step_and_validation_is_recorded_without_a_line_in_the_script(folder, fnostab):
    pytest.importorskip("jsonargparse", reason="needs the extra dev")
    arms = ("control", "qk_norm")
    study = ("run", "study.yaml", "--arms", ",".join(arms), "--seeds", "1", "--jobs", "2", "--set", "steps=50")
    done = fnostab(folder, *study)
    assert done.returncode == 0, done.stdout + done.stderr
    trials = sorted(folder.glob("outputs/language_model/*/*/journal.jsonl"))
    assert [path.parent.name for path in trials] == ["control-0", "qk_norm-0"]
    for path in trials:
        records = read(path)
        for metric in ("train/loss", "grad_norm/total"):
            assert [r["s"] for r in records if metric in r.get("v", {})] == list(range(50)), metric
        assert [r["s"] for r in records if "val/loss" in r.get("v", {})] == [49]
        assert records[-1]["p"]["outcome"] in ("converged", "stagnated")
        assert list(path.parent.glob("files/lightning_logs/version_0/config.yaml"))  # beside no other trial's
    decided = fnostab(folder, "decide", "--experiment", "language_model")
    assert "qk_norm: undecided" in decided.stdout, decided.stdout + decided.stderr


@pytest.mark.slow
def test_it_trains_by_itself_as_before(folder, environment):
    pytest.importorskip("jsonargparse", reason="needs the extra dev")
    command = [sys.executable, "train.py", "fit", "--config", "config.yaml", "--trainer.max_steps", "2"]
    alone = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert alone.returncode == 0, alone.stderr
    assert not (folder / "outputs").exists()
