"""Register the winning network in MLflow's model registry, and download checkpoints.

A network is stored as ``pt2``, torch's exported graph: weights and operations, no pickled code. So
``models:/NAME@ALIAS`` loads without fnostab, also where MLFLOW_ALLOW_PICKLE_DESERIALIZATION is false. The loaded
model is a graph in evaluation mode, not the original class. Complex outputs are part of the signature; only MLflow's
REST scoring server can't return them, since JSON has no complex numbers.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import fnostab.tracking.store  # noqa: F401  first: it imports MLflow without telemetry

# isort: split
import mlflow.pytorch
import numpy as np
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature, infer_signature
from numpy.typing import NDArray

from fnostab.errors import ModelError, TrackingError
from fnostab.record import names
from fnostab.tracking.store.store import Store, existing_run, insist_on_place_of, reported

CHECKPOINT_FOLDER = "checkpoint"
CHECKPOINT = f"{CHECKPOINT_FOLDER}/best.safetensors"
VERDICT_RUN = "fnostab.verdict_run"
TRIAL_RUN = "fnostab.trial_run"
FOLDER = "network"  # artifact folder in the verdict's run


def fetch_checkpoint(store: Store, trial_run: str, folder: Path) -> Path:
    """Download a trial's best weights into ``folder``; return the path of the file.

    Raises:
        TrackingError: there is no such run, it has no weights, or the store does not answer.
    """
    with reported(store):
        existing_run(store, trial_run)
        if all(artifact.path != CHECKPOINT for artifact in store.client.list_artifacts(trial_run, CHECKPOINT_FOLDER)):
            raise TrackingError(
                f"run {trial_run} has no {CHECKPOINT}: `fnostab sync` on its output directory sends it, if it is there"
            )
        return Path(store.client.download_artifacts(trial_run, CHECKPOINT, str(folder)))


@dataclass(frozen=True)
class RegisteredModel:
    """Model in MLflow's registry, with the alias of its newest version."""

    name: str
    alias: str
    description: str


def register_network(
    store: Store,
    network: torch.nn.Module,
    example: NDArray[np.float32],
    *,
    model: RegisteredModel,
    verdict_run: str,
    trial_run: str,
    tags: Mapping[str, str],
) -> str:
    """Register a network as the newest version of a model and give it the model's alias.

    The network must be on the CPU, and is put in evaluation mode; ``example`` is a batch of inputs, shape (B, ...),
    B > 1. The exported graph is loaded back and must reproduce the network's output. It is stored among the artifacts
    of the verdict's run. The alias is moved last.

    Returns:
        Version of the registered model.

    Raises:
        ModelError: the network can't be exported.
        TrackingError: the store refuses it or does not answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FOLDER
        _export(network.eval(), example, path)
        with reported(store):
            insist_on_place_of(store, verdict_run)
            store.client.log_artifacts(verdict_run, str(path), FOLDER)
    with reported(store):
        _ensure_model(store, model)
        home = store.client.get_run(verdict_run).info.artifact_uri
        all_tags = {**tags, VERDICT_RUN: verdict_run, TRIAL_RUN: trial_run}
        made = store.client.create_model_version(model.name, f"{home}/{FOLDER}", verdict_run, tags=all_tags)
        store.client.set_registered_model_alias(model.name, model.alias, made.version)
    return str(made.version)


def _export(network: torch.nn.Module, example: NDArray[np.float32], path: Path) -> None:
    try:
        mlflow.pytorch.save_model(
            network,
            str(path),
            signature=_signature(network, example),
            input_example=example,
            serialization_format="pt2",
            pip_requirements=[f"{m.__name__}=={m.__version__.partition('+')[0]}" for m in (mlflow, torch)],
        )
        copy = mlflow.pytorch.load_model(str(path))
        for batch in (1, len(example) + 1):
            x = torch.from_numpy(np.repeat(example[:1], batch, axis=0))
            with torch.no_grad():
                torch.testing.assert_close(copy(x), network(x))
    except Exception as error:  # torch.export raises errors of many kinds
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ModelError(f"{type(network).__name__} can't be exported with torch.export: {what}") from error


def _signature(network: torch.nn.Module, example: NDArray[np.float32]) -> ModelSignature:
    with torch.no_grad():
        output = network(torch.from_numpy(example))
    return infer_signature(example, output.numpy())


def _ensure_model(store: Store, model: RegisteredModel) -> None:
    try:
        store.client.create_registered_model(model.name, {names.SCHEMA_TAG: names.SCHEMA}, model.description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
