"""A study of any program, as jobs of a real Slurm."""

import subprocess
import sys
import textwrap
import time

import pytest
import yaml

from fnostab.record import names
from fnostab.record.journal import read_journal
from fnostab.record.lines import Event, Point

TIMEOUT_S = 300

PROGRAM = """
import os
import sys
import time

from fnostab.recorder import Recorder

with Recorder() as rec:
    rec.scheduled(3)
    for step in range(3):
        while step == 1 and not os.path.exists("go"):
            time.sleep(0.1)
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
    (folder / "go").touch()
    arguments = ["run", "study.yaml", "--launcher", "slurm", "--cluster", "cluster.yaml"]
    answer = fnostab(folder, *arguments, **on_cluster.environment)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert len(list(folder.glob("outputs/toy/*/*/journal.jsonl"))) == 4
    assert len(list(folder.glob("outputs/toy/*/slurm/*_result.pkl"))) == 4
    decided = fnostab(folder, "decide", "--experiment", "toy", **on_cluster.environment)
    assert "slow: undecided, too few seeds to tell" in decided.stdout, decided.stdout + decided.stderr


def test_a_preempted_job_is_queued_again_and_its_trial_starts_anew(folder, on_cluster, environment):
    """A program that keeps no checkpoint repeats its steps: the first record of each counts."""
    command = [sys.executable, "-m", "fnostab", "run", "study.yaml", "--arms", "control", "--seeds", "1"]
    command += ["--launcher", "slurm", "--cluster", "cluster.yaml"]
    with open(folder / "driver.txt", "w") as said:
        driver = subprocess.Popen(
            command, cwd=folder, env=environment | on_cluster.environment, stdout=said, stderr=said
        )
    try:
        journal = until(lambda: next(folder.glob("outputs/toy/*/control-0/journal.jsonl"), None))
        until(lambda: any(isinstance(each, Point) for each, _ in read_journal(journal)))
        on_cluster.ask("scancel", "--signal=USR2", *on_cluster.states())
        until(lambda: outcomes(journal))
        (folder / "go").touch()
        assert driver.wait(TIMEOUT_S) == 0, (folder / "driver.txt").read_text()
    finally:
        driver.kill()
    assert [each["outcome"] for each in outcomes(journal)] == ["killed", "converged"]
    assert outcomes(journal)[0]["requested"]
    losses = [each for each, _ in read_journal(journal) if isinstance(each, Point) and "train/loss" in each.values]
    assert sorted({point.step for point in losses}) == [0, 1, 2]


def until(condition):
    """What a condition gives once it gives something."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def outcomes(journal):
    events = [each for each, _ in read_journal(journal) if isinstance(each, Event)]
    return [event.payload for event in events if event.name == names.OUTCOME_EVENT]
