"""A training goes on from any of its steps as if it had never stopped; its state is plain data."""

import itertools
import warnings

import lightning
import numpy as np
import own_networks
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.callbacks import Callback
from trials import make_spec

from fnostab.errors import CheckpointError
from fnostab.monitor import Snapshots
from fnostab.monitor.state import read_state, take_state, write_state
from fnostab.ptychography.training.setup import set_up
from fnostab.record import names

CPU = torch.device("cpu")
EPOCH, STEPS = 6, 12  # 81 patterns in batches of 16, twice
RECIPES = {
    "adam, warm-up and clipping by norm": {
        "training__schedule": "warmup_cosine",
        "training__warmup_steps": 4,
        "execution__gradient_clip_val": 1.0,
    },
    "sgd with momentum and AGC": {
        "training__optimizer": "sgd",
        "execution__gradient_clip_algorithm": "agc",
        "execution__gradient_clip_val": 0.01,
    },
    "dropout": {"model__architecture": f"{own_networks.__name__}.Untidy"},
}


class Points:
    """A sink that keeps every number by metric and step."""

    def __init__(self):
        self.values = {}

    def record(self, step, values):
        self.values |= {(step, name): value for name, value in values.items()}

    def event(self, name, payload):
        pass


class TakeAll(Callback):
    """Writes the state after every step within an epoch and at every epoch's end."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_batch_end(self, trainer, pl_module, *args):
        if not trainer.is_last_batch:
            self.take(trainer)

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch + 1 < trainer.max_epochs:
            self.take(trainer)

    def take(self, trainer):
        write_state(take_state(trainer), self.folder / f"{trainer.global_step}.safetensors")


def train(spec, folder, *more, resume=None):
    """Points and final weights of a training, from the start or from a state."""
    training = set_up(spec)
    points = Points()
    monitor = training.monitor(points)
    training.fit([monitor, Snapshots(monitor, folder), *more], CPU, folder, resume)
    weights = {name: tensor.clone() for name, tensor in training.module.state_dict().items()}
    return points.values, weights


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_going_on_from_every_step_changes_no_bit(shared_dir, tmp_path, recipe):
    spec = make_spec(shared_dir, training__epochs=2, training__batch_size=16, **recipe)
    states = tmp_path / "states"
    states.mkdir()
    whole, weights = train(spec, tmp_path, TakeAll(states))
    files = sorted(states.iterdir(), key=lambda path: int(path.stem))
    assert [int(path.stem) for path in files] == list(range(1, STEPS))  # within epochs, and one at an epoch's end
    for number, path in enumerate(files):
        torch.rand(number)  # whatever else drew random numbers before
        folder = tmp_path / path.stem
        folder.mkdir()
        resumed, weights_then = train(spec, folder, resume=path)
        step = int(path.stem)
        assert sorted(s for s, name in resumed if name == names.TRAIN_LOSS) == list(range(step, STEPS))
        assert resumed == {key: whole[key] for key in resumed}  # losses, norms, rates, validations, windows, summary
        assert {key for key in whole if key[0] >= step} <= resumed.keys()
        assert all(torch.equal(weights[name], weights_then[name]) for name in weights)


def test_a_state_is_a_copy(shared_dir, tmp_path):
    taken = []

    class Take(Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == 2:
                taken.append(take_state(trainer))
                write_state(taken[0], tmp_path / "then.safetensors")

    train(make_spec(shared_dir, training__epochs=1), tmp_path, Take())
    then = read_state(tmp_path / "then.safetensors")
    assert taken[0]["global_step"] == 2
    for name, weight in then["state_dict"].items():
        assert torch.equal(taken[0]["state_dict"][name], weight)


def test_snapshots_need_their_plugin(shared_dir, tmp_path):
    training = set_up(make_spec(shared_dir))
    trainer = lightning.Trainer(
        accelerator="cpu",
        callbacks=[Snapshots(training.monitor(None), tmp_path)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(CheckpointError, match="StateFiles"):
            trainer.fit(training.module, training.batches)


def test_without_any_state_before_says_so(shared_dir, tmp_path):
    with pytest.raises(CheckpointError, match="before step 7"):
        Snapshots(set_up(make_spec(shared_dir)).monitor(None), tmp_path).before(7)


# The codec

NUMBERS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
TENSORS = st.builds(
    lambda shape, dtype, seed: torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).to(dtype),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool]),
    st.integers(0, 9),
)
ARRAYS = st.lists(st.integers(0, 2**32 - 1), max_size=4).map(lambda values: np.array(values, dtype=np.uint32))
KEYS = st.text() | st.integers()
TREES = st.recursive(
    NUMBERS | TENSORS | ARRAYS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=12,
)
FILES = itertools.count()


def same(one, other):
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


@given(tree=st.dictionaries(KEYS, TREES, max_size=4))
def test_what_is_read_is_what_was_written(files, tree):
    path = files / f"{next(FILES)}.safetensors"
    write_state(tree, path)
    assert same(tree, read_state(path))
    assert not list(files.glob("*.partial"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 2**80, "\ud7ff"])
def test_odd_numbers_are_kept(tmp_path, value):
    write_state({"value": [value]}, tmp_path / "x.safetensors")
    (read,) = read_state(tmp_path / "x.safetensors")["value"]
    assert repr(read) == repr(value)


@pytest.mark.parametrize("value", [object(), {1, 2}, lambda: None, 1j])
def test_what_is_no_plain_data_is_refused(tmp_path, value):
    with pytest.raises(CheckpointError, match=type(value).__name__):
        write_state({"value": value}, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_written(tmp_path):
    with pytest.raises(CheckpointError, match="can't write"):
        write_state({"weight": torch.ones(3)}, tmp_path / "nowhere" / "x.safetensors")


@pytest.mark.parametrize("damage", ["empty", "cut", "header", "missing", "not ours", "no tree"])
def test_a_damaged_file_is_refused(tmp_path, damage):
    from safetensors.torch import save_file

    path = tmp_path / "x.safetensors"
    write_state({"weight": torch.ones(100)}, path)
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "not ours":
        save_file({"weight": torch.ones(3)}, path)
    elif damage == "no tree":
        save_file({"weight": torch.ones(3)}, path, metadata={"tree": '{"dict": [["a", {"tensor": "7"}]]}'})
    else:
        path.write_bytes({"empty": b"", "cut": content[:-50], "header": b"\xff" * 8 + content[8:]}[damage])
    with pytest.raises(CheckpointError, match="not the state of a training"):
        read_state(path)
