"""The example examples/darcy: neuraloperator's FNO as a study, with few steps."""

import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "darcy"


@pytest.fixture(scope="module")
def data():
    return runpy.run_path(str(EXAMPLE / "data.py"))


def test_the_pressure_in_a_uniform_medium_is_poisson_s(data):
    pressure = data["pressure"](np.ones((31, 31)))
    assert pressure.max() == pytest.approx(0.0736713, rel=1e-3)  # of -u'' = 1 on the unit square, by its series
    np.testing.assert_allclose([pressure[::-1], pressure.T], [pressure, pressure])
    np.testing.assert_allclose(data["pressure"](np.full((31, 31), 4.0)), pressure / 4)


def test_no_flow_is_lost_between_two_materials(data):
    """What flows out over the edge is what the source gives, whatever lies in between."""
    a = np.where(np.random.default_rng(3).random((20, 20)) > 0.5, 12.0, 3.0)
    u = data["pressure"](a)
    out = sum((a * u)[edge].sum() for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]))
    assert out == pytest.approx((20 / 21) ** 2)


def test_the_baseline_of_the_study_is_the_error_of_the_mean(data):
    (_, seen), (_, held_out) = data["darcy_flow"](128, 32, seed=0), data["darcy_flow"](32, 32, seed=1)
    error = (seen.mean(0) - held_out).flatten(1).norm(dim=1) / held_out.flatten(1).norm(dim=1)
    assert f"baseline: {error.mean():.2f}" in (EXAMPLE / "study.yaml").read_text()


@pytest.mark.slow
def test_every_arm_trains_and_is_recorded(workplace, fnostab):
    pytest.importorskip("neuralop", reason="needs the extra bench")
    shutil.copytree(EXAMPLE, workplace, dirs_exist_ok=True, ignore=shutil.ignore_patterns("outputs", "mlflow.db"))
    few = ("--set", "epochs=2", "--set", "samples=32", "--set", "layers=2")
    done = fnostab(workplace, "run", "study.yaml", "--seeds", "1", "--jobs", "2", *few)
    assert done.returncode == 0, done.stdout + done.stderr
    trials = sorted(workplace.glob("outputs/darcy/*/*/journal.jsonl"))
    assert [path.parent.name for path in trials] == ["bf16-0", "control-0", "normed-0", "tanh-0"]
    curves = []
    for path in trials:
        records = [json.loads(line.partition(" ")[2]) for line in path.read_text().splitlines()]
        curves.append([r["v"]["train/loss"] for r in records if "train/loss" in r.get("v", {})])
        assert len(curves[-1]) == 4
        assert [r["s"] for r in records if "val/loss" in r.get("v", {})] == [1, 3]
    assert len({tuple(curve) for curve in curves}) == 4  # each arm is another network
