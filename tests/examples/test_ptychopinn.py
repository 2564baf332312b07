"""The example `ptychopinn`: a module that optimises by hand and clips by itself, as a study; the page's answers."""

import re
import runpy
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from fnostab.record.journal_outcomes import read_recorded

EXAMPLE = Path(__file__).parents[2] / "examples" / "ptychopinn"


@pytest.fixture(scope="module")
def physics():
    return runpy.run_path(str(EXAMPLE / "physics.py"))


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLE)
        return runpy.run_path(str(EXAMPLE / "train.py"))


def test_two_lines_are_added_to_the_script():
    lines = (EXAMPLE / "train.py").read_text().splitlines()
    added = [line for line in lines if re.search("fnostab|StabilityMonitor", line)]
    assert [line.partition("  # ")[2] for line in added] == ["1 of 2 lines added", "2 of 2"]


def test_the_detector_sees_the_energy_of_the_exit_wave(physics):
    patches = torch.polar(torch.rand(2, 1, 32, 32), torch.rand(2, 1, 32, 32))
    energy = physics["diffraction"](patches).square().sum((1, 2, 3))
    assert energy.tolist() == pytest.approx((patches * physics["probe"]()).abs().square().sum((1, 2, 3)).tolist())


def test_the_baseline_of_the_study_is_the_loss_of_the_best_constant_patch(physics):
    measured = physics["scan"](64, seed=2)
    of_one = physics["diffraction"](torch.ones(1, 1, 32, 32))
    losses = [(a * of_one - measured).abs().mean() / measured.mean() for a in torch.linspace(0.05, 1, 191)]
    assert yaml.safe_load((EXAMPLE / "study.yaml").read_text())["outcome"] == {"baseline": round(float(min(losses)), 3)}


def test_clipping_by_units_leaves_no_unit_more_than_its_share(script):
    torch.manual_seed(0)
    network = script["PtychoNet"](0.02, 0.01, "agc")
    network.loss_of(script["scan"](4, seed=3)).backward()
    before = {name: p.grad.clone() for name, p in network.named_parameters()}
    script["clip_by_units"](network.parameters(), 0.01)
    for name, p in network.named_parameters():
        for unit, gradient, old in (
            zip(p, p.grad, before[name], strict=True) if p.ndim > 1 else [(p, p.grad, before[name])]
        ):
            share = gradient.norm() / unit.norm().clamp(min=1e-3)
            assert share <= 0.01 * (1 + 1e-5), name
            assert share >= 0.0099 or torch.equal(gradient, old), name


def test_the_page_shows_what_decide_says_of_the_trials(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    status, out, err = call("decide", "--table", str(EXAMPLE / "results.csv"))
    assert status == 0, err
    page = " ".join((EXAMPLE / "README.md").read_text().split())
    answers = re.findall(r"`((?:norm|agc)[: ][^`]+)`", page)
    assert len(answers) == 2
    assert all(answer in " ".join(out.split()) for answer in answers), out


@pytest.mark.slow
def test_norms_before_its_own_clipping_are_recorded(fnostab, workplace):
    shutil.copytree(EXAMPLE, workplace / "example", ignore=shutil.ignore_patterns("outputs", "mlflow.db"))
    folder = workplace / "example"
    shutil.copy(workplace / "mlflow.db", folder)
    done = fnostab(folder, "run", "study.yaml", "--seeds", "1", "--jobs", "2", "--set", "epochs=1")
    assert done.returncode == 0, done.stdout + done.stderr
    curves = {
        arm: read_recorded(next(folder.glob(f"outputs/*/*/{arm}-0"))).curves for arm in ("control", "norm", "agc")
    }
    before, after = (
        {arm: list(c[f"grad_norm/{end}"].values()) for arm, c in curves.items()} for end in ("total", "clipped")
    )
    assert {len(norms) for norms in before.values()} == {32}
    assert before["norm"][0] == before["agc"][0] == before["control"][0]  # the same weights and batch, whoever clips
    assert after["control"] == before["control"]
    assert after["norm"] == pytest.approx([min(norm, 1) for norm in before["norm"]], rel=1e-4)
    assert all(clipped < norm for norm, clipped in zip(before["agc"], after["agc"], strict=True))
    for each in curves.values():
        assert list(each["val/mae_val_Amp_loss"]) == [31]
