"""Files that a failed trial leaves behind."""

import json
import zipfile

import own_networks
import pytest
import torch
from safetensors.torch import load_file
from trial_records import config_of
from trials import STEPS_AN_EPOCH, Trained

from fnostab.errors import CheckpointError
from fnostab.monitor import Snapshots, black_box, snapshots
from fnostab.monitor.black_box import HISTORY_FILE, STATE_FILE
from fnostab.monitor.state import read_state
from fnostab.ptychography.data import GridLinesData
from fnostab.ptychography.training.kept_failure import KeptFailure
from fnostab.ptychography.training.trial import run_trial
from fnostab.record import names
from fnostab.record.folders import find_black_box
from fnostab.record.names import BLACK_BOX_FILE
from fnostab.record.outcomes import Outcome

BAD_STEP = 13


def own(name):
    return f"{own_networks.__name__}.{name}"


def not_finite(**more):
    settings = {"model__architecture": own("NotFinite"), "model__options__step": BAD_STEP, "monitor__block_steps": 4}
    return settings | more


def folder(trial):
    return trial.directory / "artifacts" / names.BLACK_BOX


@pytest.fixture(scope="module")
def nonfinite(trained):
    return trained(**not_finite())


@pytest.fixture(scope="module")
def collapsed(trained):
    return trained(model__architecture=own("Constant"), training__epochs=8)


def test_it_holds_three_files_without_pickle(nonfinite):
    files = sorted(path.name for path in folder(nonfinite).iterdir())
    assert files == sorted((BLACK_BOX_FILE, HISTORY_FILE, STATE_FILE))
    for path in folder(nonfinite).iterdir():
        assert not zipfile.is_zipfile(path)  # as what torch.save writes is
        assert b"\x80\x02" not in path.read_bytes()[:2]
    about = json.loads((folder(nonfinite) / BLACK_BOX_FILE).read_text())
    assert (about["outcome"], about["failure_step"]) == ("nonfinite", BAD_STEP)
    version = about["environment"]["packages"]["torch"]  # the build after the + is not in the metadata of every wheel
    assert version.split("+")[0] == torch.__version__.split("+")[0]


def test_it_is_announced_for_the_upload(nonfinite):
    paths = {event["path"]: event["artifact_path"] for event in nonfinite.events(names.ARTIFACT_EVENT)}
    assert paths["artifacts/black_box"] == names.BLACK_BOX


def test_the_state_is_from_before_the_failing_step(nonfinite):
    state = read_state(folder(nonfinite) / STATE_FILE)
    assert state["global_step"] <= BAD_STEP
    assert all(torch.isfinite(w).all() for w in state["state_dict"].values())


def test_the_batch_is_that_of_the_failing_step(nonfinite, spec, data):
    config = config_of(spec())
    batches = GridLinesData(data, config.training.batch_size, config.stream(0, "data_order"))
    assert list(KeptFailure.read(folder(nonfinite)).batch) == batches.batch_indices(BAD_STEP).tolist()


def test_the_history_is_the_journals_up_to_the_failure(nonfinite):
    kept = KeptFailure.read(folder(nonfinite))
    assert max(kept.losses) >= BAD_STEP
    losses = nonfinite.curve(names.TRAIN_LOSS)
    assert kept.losses == {step: losses[step] for step in kept.losses}
    history = load_file(folder(nonfinite) / HISTORY_FILE)
    at_failure = history["gradient_norms"][history["step"].tolist().index(BAD_STEP)]
    assert not torch.isfinite(at_failure).all()
    assert torch.isfinite(history["weight_norms"]).all()


def test_a_trial_that_converges_keeps_none(trained):
    trial = trained()
    assert not folder(trial).exists()
    with pytest.raises(CheckpointError, match="no black box"):
        find_black_box(trial.directory)


def test_the_box_of_a_collapse_starts_at_the_epoch_before(collapsed):
    assert collapsed.outcome is Outcome.COLLAPSED
    kept = KeptFailure.read(folder(collapsed))
    assert kept.failure_step == STEPS_AN_EPOCH - 1
    assert read_state(folder(collapsed) / STATE_FILE)["global_step"] == 0
    assert max(kept.losses) == kept.failure_step  # not that of the steps that were trained on


def test_it_is_written_at_once_though_the_trial_goes_on(spec, tmp_path, monkeypatch):
    written_at = []
    write = black_box.write_state
    kept = tmp_path / "artifacts" / names.BLACK_BOX
    monkeypatch.setattr(black_box, "write_state", lambda state, path: written_at.append(path) or write(state, path))
    # the weights of step 0, on disk, suffice where nothing newer is in memory
    trial = Trained(run_trial(spec(**not_finite(monitor__after_failure="continue")), tmp_path), tmp_path)
    assert trial.outcome is Outcome.NONFINITE
    assert len(trial.curve(names.TRAIN_LOSS)) == 3 * STEPS_AN_EPOCH
    assert max(KeptFailure.read(kept).losses) < BAD_STEP + 4  # one block of steps later, not at the end
    assert len(written_at) <= 1


def test_at_most_two_generations_are_in_memory(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(snapshots, "EVERY_STEPS", 8)
    counts = []
    take = Snapshots._take
    monkeypatch.setattr(
        Snapshots, "_take", lambda self, trainer: take(self, trainer) or counts.append(len(self.recent))
    )
    outcome = run_trial(spec(**not_finite(model__options__step=30)), tmp_path)
    assert outcome is Outcome.NONFINITE
    assert len(counts) > 2
    assert max(counts) == 2
    state = read_state(tmp_path / "artifacts" / names.BLACK_BOX / STATE_FILE)
    assert state["global_step"] in (16, 17, 22)  # taken every 8 steps or at an epoch's end, at least 8 before


def full(*args, **kwargs):
    raise CheckpointError("can't write it: No space left on device")


@pytest.mark.parametrize("architecture", ["NotFinite", "Constant"])
@pytest.mark.parametrize(("module", "name"), [(black_box, "write_tensors"), (snapshots, "write_state")])
@pytest.mark.filterwarnings("ignore:can't write it", "ignore:the black box could not be kept")
def test_on_a_full_disk_the_outcome_still_stands(spec, tmp_path, monkeypatch, architecture, module, name):
    monkeypatch.setattr(module, name, full)
    options = {"model__options__step": BAD_STEP} if architecture == "NotFinite" else {"training__epochs": 8}
    wanted = Outcome.NONFINITE if architecture == "NotFinite" else Outcome.COLLAPSED
    trial = Trained(run_trial(spec(model__architecture=own(architecture), **options), tmp_path), tmp_path)
    assert trial.outcome is wanted
    assert trial.final["outcome"] == wanted
    assert not folder(trial).exists()
    assert not list((tmp_path / "artifacts").glob("*.partial"))


def test_the_place_is_taken(spec, tmp_path):
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "black_box.partial").write_text("a file where a folder should be")
    with pytest.warns(UserWarning, match="black box could not be kept"):
        outcome = run_trial(spec(**not_finite()), tmp_path)
    assert outcome is Outcome.NONFINITE


@pytest.mark.parametrize("name", [BLACK_BOX_FILE, HISTORY_FILE, STATE_FILE])
def test_a_damaged_or_incomplete_box_is_refused(nonfinite, tmp_path, name):
    for path in folder(nonfinite).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    if name == STATE_FILE:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:100])
    with pytest.raises(CheckpointError, match="not a readable black box"):
        KeptFailure.read(tmp_path)
