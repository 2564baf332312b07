"""The winning network in MLflow's model registry.

A network is kept as ``pt2``, torch's exported graph: weights and operations, no pickled code. So
``models:/fnostab-generator@champion`` loads without fnostab, and where
MLFLOW_ALLOW_PICKLE_DESERIALIZATION is false. What loads is a graph in evaluation mode, not the
original class. Complex outputs are part of the signature; only MLflow's REST scoring server can't
answer with them, since JSON has no complex numbers.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import mlflow.pytorch
import numpy as np
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature, infer_signature
from numpy.typing import NDArray

from fnostab.errors import ModelError, TrackingError
from fnostab.ptychography.policy import CHAMPION, MODEL_NAME
from fnostab.record import names
from fnostab.tracking.store.store import Store, reported

__all__ = ["TRIAL_RUN", "VERDICT_RUN", "fetch_checkpoint", "register_generator"]

CHECKPOINT_FOLDER = "checkpoint"
CHECKPOINT = f"{CHECKPOINT_FOLDER}/best.safetensors"
VERDICT_RUN = "fnostab.verdict_run"
TRIAL_RUN = "fnostab.trial_run"
FOLDER = "generator"  # among the artifacts of the verdict's run
EXAMPLE_BATCH = 2  # torch.export makes a batch of 1 a constant: the network would take no other


def fetch_checkpoint(store: Store, trial_run: str, folder: Path) -> Path:
    """Download a trial's best weights into ``folder``; return their path.

    Raises:
        TrackingError: there is no such run, it has none, or the store does not answer.
    """
    with reported(store):
        _find_run(store, trial_run)
        if all(artifact.path != CHECKPOINT for artifact in store.client.list_artifacts(trial_run, CHECKPOINT_FOLDER)):
            raise TrackingError(
                f"run {trial_run} has no {CHECKPOINT}: `fnostab sync` on its output directory sends it, if it is there"
            )
        return Path(store.client.download_artifacts(trial_run, CHECKPOINT, str(folder)))


def _find_run(store: Store, run_id: str) -> None:
    try:
        store.client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise TrackingError(f"there is no run {run_id} in {store.address}: check the id, or --tracking-uri") from None


def register_generator(
    store: Store, generator: torch.nn.Module, N: int, *, verdict_run: str, trial_run: str, tags: Mapping[str, str]
) -> str:
    """Register a network as the newest version of ``fnostab-generator`` and make it the champion.

    The alias moves last, once a copy that was loaded back has given the network's own output.

    Args:
        store: where to.
        generator: (B, 1, N, N) float32 -> (B, 1, N, N) complex64, on the CPU; it is put in evaluation mode.
        N: pixels along a side.
        verdict_run: that chose it, and whose artifacts hold it.
        trial_run: that trained it.
        tags: of the version, beside those two.

    Returns:
        The version.

    Raises:
        ModelError: the network can't be exported.
        TrackingError: the store does not take it.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FOLDER
        _export(generator.eval(), N, path)
        with reported(store):
            store.client.log_artifacts(verdict_run, str(path), FOLDER)
    with reported(store):
        _ensure_model(store)
        home = store.client.get_run(verdict_run).info.artifact_uri
        all_tags = {**tags, VERDICT_RUN: verdict_run, TRIAL_RUN: trial_run}
        made = store.client.create_model_version(MODEL_NAME, f"{home}/{FOLDER}", verdict_run, tags=all_tags)
        store.client.set_registered_model_alias(MODEL_NAME, CHAMPION, made.version)
    return str(made.version)


def _export(generator: torch.nn.Module, N: int, path: Path) -> None:
    amplitude = np.random.default_rng(0).random((EXAMPLE_BATCH, 1, N, N), dtype=np.float32)
    try:
        mlflow.pytorch.save_model(
            generator,
            str(path),
            signature=_signature(generator, amplitude),
            input_example=amplitude,
            serialization_format="pt2",
            pip_requirements=[f"{m.__name__}=={m.__version__.partition('+')[0]}" for m in (mlflow, torch)],
        )
        copy = mlflow.pytorch.load_model(str(path))
        for batch in (1, EXAMPLE_BATCH + 1):
            x = torch.from_numpy(amplitude[:1]).repeat(batch, 1, 1, 1)
            with torch.no_grad():
                torch.testing.assert_close(copy(x), generator(x))
    except Exception as error:  # torch.export raises errors of many kinds
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ModelError(f"{type(generator).__name__} can't be exported with torch.export: {what}") from error


def _signature(generator: torch.nn.Module, amplitude: NDArray[np.float32]) -> ModelSignature:
    with torch.no_grad():
        patch = generator(torch.from_numpy(amplitude))
    return infer_signature(amplitude, patch.numpy())


def _ensure_model(store: Store) -> None:
    try:
        store.client.create_registered_model(
            MODEL_NAME,
            {names.SCHEMA_TAG: names.SCHEMA},
            "Measured amplitudes (B, 1, N, N) float32 in, complex object patches (B, 1, N, N) complex64 out. "
            f"Registered by `fnostab decide --apply`; the alias {CHAMPION} is the network of the last GOLD.",
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
