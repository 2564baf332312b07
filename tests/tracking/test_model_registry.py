import mlflow
import numpy as np
import pytest
import torch
from torch import nn

from fnostab.errors import ModelError, TrackingError
from fnostab.ptychography.models import build_initialised
from fnostab.ptychography.settings import ModelConfig
from fnostab.tracking import RegisteredModel, fetch_checkpoint, register_network
from fnostab.tracking.store.store import experiment_id

N = 16
NAME, CHAMPION = "fnostab-generator", "models:/fnostab-generator@champion"
TAGS = {"fnostab.arm": "arch_fix", "fnostab.seed": "3"}


@pytest.fixture
def no_pickle(monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")


@pytest.fixture
def load(store, monkeypatch, no_pickle):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    return mlflow.pytorch.load_model


def network(architecture, seed=0):
    config = ModelConfig(architecture=architecture, N=N, hidden_channels=4, fno_blocks=2, fno_modes=3)
    generator = build_initialised(config, seed)
    with torch.no_grad():  # a gain that starts at 0 would hide its branch
        for parameter in generator.parameters():
            parameter += 0.01
    return generator


def make_run(store):
    return store.client.create_run(experiment_id(store, "stage_a")).info.run_id


def register(store, generator):
    verdict_run, trial_run = make_run(store), make_run(store)
    example = np.random.default_rng(0).random((2, 1, N, N), dtype=np.float32)
    model = RegisteredModel(NAME, "champion", "The network that a verdict chose.")
    version = register_network(
        store, generator, example, model=model, verdict_run=verdict_run, trial_run=trial_run, tags=TAGS
    )
    return version, verdict_run, trial_run


@pytest.mark.parametrize("architecture", ["fno", "stable_hybrid"])
def test_the_champion_loads_without_pickle_and_gives_the_networks_output(store, load, architecture):
    generator = network(architecture)
    register(store, generator)
    champion = load(CHAMPION)
    for batch in (1, 2, 5):
        amplitude = torch.rand(batch, 1, N, N)
        with torch.no_grad():
            patch = champion(amplitude)
            assert patch.dtype == torch.complex64
            torch.testing.assert_close(patch, generator.eval()(amplitude))


def test_signature_example_and_origin_are_kept(store, load):
    generator = network("fno")
    version, verdict_run, trial_run = register(store, generator)
    model = mlflow.pyfunc.load_model(CHAMPION)
    (amplitude,), (patch,) = model.metadata.signature.inputs.inputs, model.metadata.signature.outputs.inputs
    assert (amplitude.type, amplitude.shape) == (np.dtype("float32"), (-1, 1, N, N))
    assert (patch.type, patch.shape) == (np.dtype("complex64"), (-1, 1, N, N))
    with torch.no_grad():
        expected = generator(torch.from_numpy(model.input_example)).numpy()
    np.testing.assert_allclose(model.predict(model.input_example), expected, rtol=1e-5, atol=1e-6)
    tags = store.client.get_model_version(NAME, version).tags
    assert tags == TAGS | {"fnostab.verdict_run": verdict_run, "fnostab.trial_run": trial_run}


def test_the_alias_moves_to_the_newest_and_older_versions_stay(store, load):
    first, second = network("fno", 0), network("fno", 1)
    assert [register(store, generator)[0] for generator in (first, second)] == ["1", "2"]
    assert int(store.client.get_model_version_by_alias(NAME, "champion").version) == 2
    amplitude = torch.rand(1, 1, N, N)
    with torch.no_grad():
        torch.testing.assert_close(load(CHAMPION)(amplitude), second(amplitude))
        torch.testing.assert_close(load(f"models:/{NAME}/1")(amplitude), first(amplitude))


class Unexportable(nn.Module):
    def forward(self, x):
        return torch.complex(x, x) * (1 if float(x.sum()) > 0 else -1)


def test_a_network_that_cant_be_exported_registers_nothing(store):
    with pytest.raises(ModelError, match=r"Unexportable can't be exported with torch.export: ") as refused:
        register(store, Unexportable())
    assert "\n" not in str(refused.value)
    assert store.client.search_registered_models() == []


def test_a_trial_without_a_checkpoint(store, tmp_path):
    run_id = make_run(store)
    with pytest.raises(TrackingError, match=f"run {run_id} has no checkpoint/best.safetensors"):
        fetch_checkpoint(store, run_id, tmp_path)
