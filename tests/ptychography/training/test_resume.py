"""A trial whose process dies goes on where it was, exactly."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from moments import signal_at
from trials import Trained, make_spec

from fnostab.ptychography.training.trial import run_trial
from fnostab.record import names
from fnostab.record.journal import read_journal
from fnostab.record.lines import Event
from fnostab.record.outcomes import Outcome


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    # warm-up, clipping and Adam: schedule, clipped fraction and optimiser state all have to go on
    return make_spec(
        tmp_path_factory.mktemp("data"),
        training__epochs=9,
        training__schedule="warmup_cosine",
        training__warmup_steps=15,
        execution__gradient_clip_val=1.0,
    )


@pytest.fixture(scope="module")
def uninterrupted(spec, tmp_path_factory):
    directory = tmp_path_factory.mktemp("uninterrupted")
    return Trained(run_trial(spec, directory), directory)


def run_until(spec, directory, step, signum):
    """Start a trial as launchers do; its process gets a signal once it has recorded ``step``."""
    spec.write(directory / "trial.json")
    command = [sys.executable, "-m", "fnostab", "train", "--trial", str(directory / "trial.json")]
    alone = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **signal_at(step, signum, directory)}
    return subprocess.run(command, env=os.environ | alone, timeout=300).returncode


def resumed_at(directory):
    records = [r for r, _ in read_journal(directory / "journal.jsonl")]
    return [r.payload["step"] for r in records if isinstance(r, Event) and r.name == names.RESUMED_EVENT]


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_the_resumed_curve_equals_the_uninterrupted_one(spec, uninterrupted, tmp_path, signum):
    status = run_until(spec, tmp_path, 80, signum)
    assert status != 0
    resumed = Trained(run_trial(spec, tmp_path), tmp_path)
    assert resumed.outcome is uninterrupted.outcome is Outcome.CONVERGED
    (step,) = resumed_at(tmp_path)
    assert step > 0
    assert sorted(resumed.points) == sorted(uninterrupted.points)  # every point, none twice


def test_groups_of_parameters_go_on_with_their_own_rates(shared_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3] / "examples" / "cure_search"), prepend=os.pathsep)
    settings = {"training__schedule": "warmup", "training__warmup_steps": 15}
    mup = make_spec(shared_dir, training__epochs=9, training__optimizer="cure_parts.mup.adam", **settings)
    whole = Trained(run_trial(mup, tmp_path / "whole"), tmp_path / "whole")
    run_until(mup, tmp_path / "killed", 40, signal.SIGKILL)
    resumed = Trained(run_trial(mup, tmp_path / "killed"), tmp_path / "killed")
    assert len(resumed_at(tmp_path / "killed")) == 1
    assert sorted(resumed.points) == sorted(whole.points)


def test_a_trial_that_is_asked_to_end_keeps_the_epoch_under_way(shared_dir, tmp_path):
    epochs_of_81 = make_spec(shared_dir, training__batch_size=1, training__epochs=2, monitor__block_steps=1)
    run_until(epochs_of_81, tmp_path, 70, signal.SIGTERM)  # a copy is taken every 64 steps
    run_trial(epochs_of_81, tmp_path)
    assert resumed_at(tmp_path) == [64]


def test_a_finished_trial_keeps_no_state(uninterrupted):
    assert not list(uninterrupted.directory.glob("*.safetensors"))


def test_a_damaged_state_means_starting_anew(spec, uninterrupted, tmp_path):
    run_until(spec, tmp_path, 80, signal.SIGKILL)
    state = tmp_path / "resume.safetensors"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="not the state of a training"):
        resumed = Trained(run_trial(spec, tmp_path), tmp_path)
    assert sorted(resumed.points) == sorted(uninterrupted.points)
