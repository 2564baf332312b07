"""`fnostab replay`, from a folder and from the store, on a tiny trial that overflows."""

import json
import shutil

import pytest
from trial_records import trial_spec

from fnostab.errors import TrackingError
from fnostab.ptychography.cli.replay import _suffix
from fnostab.record import names
from fnostab.tracking import fetch_black_box, open_store
from fnostab.tracking.read.black_box import _is_plain
from fnostab.tracking.store.store import experiment_id


@pytest.fixture(scope="module")
def trial(tmp_path_factory, tiny_settings):
    """Folder of a trial whose learning rate makes its weights overflow."""
    from fnostab.ptychography.training.trial import run_trial

    folder = tmp_path_factory.mktemp("overflow")
    settings = tiny_settings | {"training.learning_rate": 1e20, "execution.device": "cpu"}
    spec = trial_spec(settings, seed=3, experiment="stage_a", study="stage_a", shared_dir=folder / "datasets")
    assert run_trial(spec, folder / "trial") == "nonfinite"
    return folder / "trial"


@pytest.fixture
def box(trial, tmp_path):
    """A copy of its black box, to be changed."""
    return shutil.copytree(trial / "artifacts" / names.BLACK_BOX, tmp_path / "copied" / names.BLACK_BOX)


@pytest.fixture
def run(workplace, trial):
    """Store and id of the trial's run in MLflow."""
    store = open_store()
    run_id = store.client.create_run(experiment_id(store, "stage_a")).info.run_id
    store.client.set_tag(run_id, names.OUTCOME, "nonfinite")
    store.client.log_artifacts(run_id, str(trial / "artifacts" / names.BLACK_BOX), names.BLACK_BOX)
    return store, run_id


@pytest.mark.parametrize("within", [".", "artifacts", "artifacts/black_box"])
def test_it_says_what_happened_and_whether_it_is_the_same(call, trial, tmp_path, monkeypatch, within):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, err = call("replay", str(trial / within), "--output", str(tmp_path / "out"))
    assert (status, err) == (0, "")
    assert "again: the " in out
    assert "Bit-equal with the trial's record" in out
    assert "First out of line: " in out
    assert "Batch of step " in out
    assert "update/" in out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["replay.json", "replay.png"]
    assert max(map(len, (line for line in out.splitlines() if str(tmp_path) not in line))) <= 80


def test_a_cure_is_called_one(call, box, monkeypatch):
    status, out, _ = call("replay", str(box), "--set", "training.learning_rate=0.001")
    assert status == 0
    assert "with training.learning_rate=0.001: the failure does not happen" in out.replace("\n", " ")
    assert (box.parent / "replay-training.learning_rate=0.001" / "replay.png").stat().st_size > 1000


def test_what_happened_is_kept_beside_the_black_box(call, box):
    status, _, _ = call("replay", str(box))
    assert status == 0
    record = json.loads((box.parent / "replay" / "replay.json").read_text())
    assert record["failure"]["outcome"] == record["replay"]["outcome"] == "nonfinite"
    assert record["replay"]["steps_equal"] == record["replay"]["steps_compared"] > 0


def test_json_is_all_that_is_on_stdout(call, box, tmp_path):
    status, out, err = call("replay", str(box), "--json", "--output", str(tmp_path / "out"))
    assert status == 0
    assert json.loads(out) == json.loads((tmp_path / "out" / "replay.json").read_text())
    assert "replaying control-3" in err
    assert any(
        step["loss"] in ("nan", "inf") or step["grad_norm"] in ("nan", "inf") for step in json.loads(out)["steps"]
    )


def test_at_60_columns_and_without_colour(call, box, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")
    _, out, _ = call("replay", str(box))
    lines = [line for line in out.splitlines() if not line.startswith(str(box.parent))]
    assert max(map(len, lines)) <= 60
    assert "\x1b" not in out
    assert "…" not in out


def test_another_record_is_said_plainly(call, box):
    about = json.loads((box / "black_box.json").read_text())
    about["environment"]["packages"]["torch"] = "1.0"
    (box / "black_box.json").write_text(json.dumps(about))
    from safetensors.torch import load_file, save_file

    history = load_file(box / "history.safetensors")
    history["loss"][0] += 1
    save_file(history, box / "history.safetensors")
    status, out, _ = call("replay", str(box))
    text = " ".join(out.split())
    assert status == 0
    assert "NOT bit-equal with the trial's record" in text
    assert "The trial ran with torch 1.0 on cpu, this is torch" in text


def test_a_data_set_that_is_elsewhere_is_made_again(call, box, tmp_path):
    about = json.loads((box / "black_box.json").read_text())
    about["trial"]["shared_dir"] = str(tmp_path / "not" / "here")
    (box / "black_box.json").write_text(json.dumps(about))
    status, out, _ = call("replay", str(box), "--output", str(tmp_path / "out"))
    assert status == 0
    assert "Bit-equal" in out
    assert (tmp_path / "out" / "datasets").is_dir()
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "training.learning_rat=1"], "did you mean 'learning_rate'"),
        (["--set", "training.batch_size=2"], "can't be changed in the middle of a training"),
        (["--set", "training.learning_rate"], "write it as name=value"),
        (["--set", "model.hidden_channels=8"], "with model.hidden_channels=8 it has other parameters"),
    ],
)
def test_settings_that_are_refused(call, box, arguments, message):
    status, _, err = call("replay", str(box), *arguments)
    assert status == 2
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_folder_without_a_black_box(call, tmp_path):
    status, _, err = call("replay", str(tmp_path))
    assert status == 2
    assert "no black box in" in err


def test_where_nothing_can_be_written(call, box, tmp_path):
    (tmp_path / "file").write_text("no folder")
    status, _, err = call("replay", str(box), "--output", str(tmp_path / "file" / "out"))
    assert status == 2
    assert "name another --output" in err


# From the store


def test_from_a_run(call, run, workplace):
    _, run_id = run
    status, out, _ = call("replay", run_id)
    assert status == 0
    assert "Bit-equal" in out
    files = {path.name for path in (workplace / f"replay-{run_id}").iterdir()}
    assert files >= {"replay.json", "replay.png", names.BLACK_BOX}


def test_a_run_that_does_not_exist(call, workplace):
    status, _, err = call("replay", "0" * 32)
    assert status == 2
    assert f"no run {'0' * 32}" in err


@pytest.mark.parametrize(
    ("outcome", "message"),
    [("converged", "its outcome is converged"), ("collapsed", "fnostab sync"), (None, "not known")],
)
def test_a_run_without_a_black_box_says_its_outcome(workplace, tmp_path, outcome, message):
    store = open_store()
    run_id = store.client.create_run(experiment_id(store, "stage_a")).info.run_id
    if outcome:
        store.client.set_tag(run_id, names.OUTCOME, outcome)
    with pytest.raises(TrackingError, match=message):
        fetch_black_box(store, run_id, tmp_path / "into")
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize(
    "path",
    [
        "black_box/../../x",
        "black_box/..",
        "black_box/",
        "/etc/passwd",
        "black_box/a/b",
        "other/x",
        "black_box/..\\x",
        "black_box//x",
    ],
)
def test_names_that_leave_the_folder_are_refused(run, tmp_path, monkeypatch, path):
    from mlflow.entities import FileInfo

    store, run_id = run
    assert not _is_plain(path)
    monkeypatch.setattr(store.client, "list_artifacts", lambda *_: [FileInfo(path, False, 1)])
    with pytest.raises(TrackingError, match="not a plain file of its black box"):
        fetch_black_box(store, run_id, tmp_path / "into")
    assert not (tmp_path / "into").exists()


def test_other_settings_have_another_folder():
    long = [f"model.{'x' * 100}={value}" for value in (1, 2)]
    folders = {_suffix(settings) for settings in [("a=[1 2]",), ("a=[1:2]",), (long[0],), (long[1],)]}
    assert len(folders) == 4
    assert _suffix(("training.learning_rate=0.001",)) == "-training.learning_rate=0.001"
    assert _suffix(()) == ""
