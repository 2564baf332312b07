"""A study of any program, as jobs of a real Slurm."""

import textwrap

import pytest
import yaml

PROGRAM = """
import sys

from fnostab.recorder import Recorder

with Recorder() as rec:
    rec.scheduled(3)
    for step in range(3):
        rec.step(step, loss=1 / (step + 1), grad_norm=float(sys.argv[1]))
    rec.validation(2, loss=0.01 * float(sys.argv[2]) + 0.1)
"""
STUDY = """
name: toy
description: Does a lower rate help?
command: python train.py {lr} {seed}
metric: {name: val/loss, of: last}
defaults: {lr: 0.5}
seeds: 2
control: control
arms:
  control: {}
  slow: {lr: 0.1}
"""


@pytest.fixture
def folder(workplace, on_cluster):
    (workplace / "train.py").write_text(textwrap.dedent(PROGRAM))
    (workplace / "study.yaml").write_text(STUDY)
    (workplace / "cluster.yaml").write_text(yaml.safe_dump({"time_minutes": 30}))
    return workplace


def test_trials_of_a_program_are_jobs_of_an_array(folder, on_cluster, fnostab):
    arguments = ["run", "study.yaml", "--launcher", "slurm", "--cluster", "cluster.yaml"]
    answer = fnostab(folder, *arguments, **on_cluster.environment)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert len(list(folder.glob("outputs/toy/*/*/journal.jsonl"))) == 4
    assert len(list(folder.glob("outputs/toy/*/slurm/*_result.pkl"))) == 4
    decided = fnostab(folder, "decide", "--experiment", "toy", **on_cluster.environment)
    assert "slow: undecided, too few seeds to tell" in decided.stdout, decided.stdout + decided.stderr
