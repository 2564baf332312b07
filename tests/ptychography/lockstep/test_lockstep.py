"""Trainings side by side in one process: each as if it were alone."""

import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from moments import signal_at
from trials import STEPS_AN_EPOCH, Trained

from fnostab.errors import LaunchError
from fnostab.launch import process
from fnostab.launch.process import train_files
from fnostab.ptychography.lockstep import insist_on_lockstep, passes, trainings
from fnostab.ptychography.training.module import PtychoModule
from fnostab.ptychography.training.setup import Training
from fnostab.record import names
from fnostab.record.journal import Journal
from fnostab.record.outcomes import Outcome

LONG = {
    "training__epochs": 10,
    "training__learning_rate": 1e-3,
    "monitor__collapsed_patch_variation": 1e-9,
}  # 110 steps
SEEDS = (0, 1, 2)
CASES = {
    "hybrid": {"model__architecture": "hybrid"},
    "zero_gamma": {"model__architecture": "stable_hybrid"},
    "layerscale": {"model__architecture": "stable_hybrid", "model__residual": "layerscale"},
    "fno": {"model__architecture": "fno"},
    "many_modes": {"model__architecture": "fno", "model__fno_modes": 32},
    "norm": {"execution__gradient_clip_val": 0.5},
    "value": {"execution__gradient_clip_val": 0.01, "execution__gradient_clip_algorithm": "value"},
    "agc": {"execution__gradient_clip_val": 0.01, "execution__gradient_clip_algorithm": "agc"},
    "adamw": {"training__optimizer": "adamw", "training__weight_decay": 0.01},
    "mup": {"training__optimizer": "cure_parts.mup.adam", "execution__gradient_clip_val": 0.5},
    "sgd": {"training__optimizer": "sgd", "training__learning_rate": 0.01},
    "warmup_cosine": {"training__schedule": "warmup_cosine", "training__warmup_steps": 20},
    "poisson": {"training__loss": "poisson"},
    "bfloat16": {"execution__convolution_precision": "bfloat16"},
}


@pytest.fixture
def side_by_side(spec, tmp_path, monkeypatch):
    """A function that trains seeds of one arm in lockstep and gives (exit status, what each left)."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the process is pytest's
    monkeypatch.setattr(process, "keep_freed_memory", lambda: None)

    def train(*seeds, **settings):
        files = [tmp_path / f"control-{seed}" / "trial.json" for seed in seeds]
        for seed, file in zip(seeds, files, strict=True):
            spec(seed, **settings).write(file)
        status = train_files(files)
        return status, [Trained(None, file.parent) for file in files]

    return train


def difference(one, other, metric, steps=slice(None)):
    """Largest relative difference between two curves with the same points."""
    assert [point[:2] for point in one.points] == [point[:2] for point in other.points]
    a, b = (torch.tensor(list(each.curve(metric).values()), dtype=torch.float64)[steps] for each in (one, other))
    return ((a - b).abs() / torch.maximum(a.abs(), b.abs())).max().item()


@pytest.mark.parametrize("case", CASES)
def test_each_is_the_same_as_alone_but_for_rounding(case, side_by_side, trained):
    settings = LONG | CASES[case]
    status, together = side_by_side(0, 2, **settings)
    assert status == 0
    for seed, one in zip((0, 2), together, strict=True):
        alone = trained(seed, **settings)
        assert len(alone.curve(names.TRAIN_LOSS)) == 10 * STEPS_AN_EPOCH
        for metric in (names.TRAIN_LOSS, names.GRAD_NORM, names.GRAD_NORM_CLIPPED):
            assert difference(one, alone, metric, slice(14)) < (2e-2 if case == "bfloat16" else 2e-6)
        # later rounding may turn the sign of a pixel's error, and with it a part of the gradient
        assert difference(one, alone, names.TRAIN_LOSS) < (5e-2 if case == "bfloat16" else 5e-3)
        assert one.final["outcome"] == alone.final["outcome"]


def test_the_networks_are_really_computed_together(side_by_side, monkeypatch):
    """But for the first validation batch of each epoch, whose blocks are watched."""
    computed = []
    call = passes._Stack.__call__
    monkeypatch.setattr(passes._Stack, "__call__", lambda self, x: computed.append(x.shape[:2]) or call(self, x))
    side_by_side(*SEEDS)
    assert computed.count((3, 8)) + computed.count((3, 1)) == 3 * STEPS_AN_EPOCH


def test_no_training_begins_before_all_are_set_up(side_by_side, monkeypatch):
    """Its draws from torch's global random state would change the initial weights of those that are set up later."""
    order = []
    set_up, fit = trainings.set_up, Training.fit

    def slowly(*arguments):
        time.sleep(0.2)
        done = set_up(*arguments)
        order.append("set up")
        return done

    monkeypatch.setattr(trainings, "set_up", slowly)
    monkeypatch.setattr(Training, "fit", lambda self, *a, **k: (order.append("fit"), fit(self, *a, **k))[1])
    status, _ = side_by_side(*SEEDS)
    assert status == 0
    assert order == ["set up"] * 3 + ["fit"] * 3


def test_one_that_goes_nan_ends_alone(side_by_side, trained, monkeypatch):
    step = PtychoModule.training_step

    def poisoned(self, batch, batch_idx):
        place = self.seat.lockstep.seats.index(self.seat)
        return step(self, batch, batch_idx) * (math.nan if place == 1 and self.trainer.global_step == 7 else 1.0)

    settings = {"monitor__block_steps": 1, "training__learning_rate": 1e-3}  # read at every step: it ends at once
    with monkeypatch.context() as patch:
        patch.setattr(PtychoModule, "training_step", poisoned)
        status, (first, second, third) = side_by_side(*SEEDS, **settings)
    assert status == 0
    assert (second.final["outcome"], second.final["failure_step"]) == ("nonfinite", 7)
    assert max(second.curve(names.TRAIN_LOSS)) == 7
    for seed, one in ((0, first), (2, third)):
        assert difference(one, trained(seed, **settings), names.TRAIN_LOSS) < 1e-6
        assert one.final["outcome"] == trained(seed, **settings).final["outcome"]


def test_one_that_cannot_start_keeps_nobody_waiting(side_by_side, tmp_path, capsys):
    with Journal(tmp_path / "control-1"):  # another process is at work on it
        status, (first, _, third) = side_by_side(*SEEDS)
    assert status == 1
    assert first.final["outcome"] == third.final["outcome"] == "converged"
    assert "control-1" in (said := capsys.readouterr().err)
    assert "being written" in said


def test_one_that_runs_out_of_memory_is_the_only_one(side_by_side, monkeypatch):
    step = PtychoModule.training_step

    def greedy(self, batch, batch_idx):
        if self.seat.lockstep.seats.index(self.seat) == 0 and self.trainer.global_step == 5:
            raise torch.OutOfMemoryError("no more")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(PtychoModule, "training_step", greedy)
    status, ended = side_by_side(*SEEDS)
    assert status == 1
    assert [one.final["outcome"] for one in ended] == ["oom", "converged", "converged"]


def test_the_records_say_that_it_was_in_lockstep(side_by_side, trained):
    _, (one, _) = side_by_side(0, 1)
    tags = {key: value for payload in one.events(names.TAGS_EVENT) for key, value in payload.items()}
    assert tags[names.LOCKSTEP] == "2"
    assert not any(names.LOCKSTEP in payload for payload in trained(0).events(names.TAGS_EVENT))


def test_other_settings_are_refused(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the process is pytest's
    monkeypatch.setattr(process, "keep_freed_memory", lambda: None)
    files = [tmp_path / name / "trial.json" for name in "ab"]
    spec(0).write(files[0])
    spec(1, training__learning_rate=1e-4).write(files[1])
    with pytest.raises(LaunchError, match="only seeds of one arm can be trained in lockstep"):
        train_files(files)


@pytest.mark.parametrize(
    "settings", [{"model__architecture": "own_networks.Tiny"}, {"model__checkpoint_blocks": True}], ids=str
)
def test_what_lockstep_cannot_do_is_refused(settings, spec):
    with pytest.raises(LaunchError, match="can't be trained in lockstep"):
        insist_on_lockstep([spec(seed, **settings) for seed in (0, 1)])


def test_sigterm_ends_all_and_each_goes_on_by_itself(spec, tmp_path):
    settings = {"training__epochs": 20}
    files = [tmp_path / f"control-{seed}" / "trial.json" for seed in (0, 1)]
    for seed, file in enumerate(files):
        spec(seed, **settings).write(file)
    command = [sys.executable, "-m", "fnostab", "train"]
    both = [*command, "--trial", str(files[0]), "--trial", str(files[1])]
    told = os.environ | signal_at(15 * STEPS_AN_EPOCH, signal.SIGTERM, tmp_path)
    assert subprocess.run(both, env=told, timeout=300).returncode == 1
    for file in files:
        assert (file.parent / "resume.safetensors").exists()
        killed = Trained(None, file.parent)
        assert killed.final["outcome"] == Outcome.KILLED
        assert "SIGTERM" in killed.final["reason"]
        alone = subprocess.run([*command, "--trial", str(file)], check=False, capture_output=True, text=True)
        assert alone.returncode == 0, alone.stderr
        resumed = Trained(None, file.parent)
        assert resumed.final["outcome"] == "converged"
        assert len(resumed.curve(names.TRAIN_LOSS)) == 20 * STEPS_AN_EPOCH
