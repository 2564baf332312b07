"""Cache of data sets on disk: each is created once, and verified by SHA-256 whenever it is read.

    <root>/<digest>/manifest.json, probe.npy, train_amplitudes.npy, ...

The folder is created atomically: it is written under a temporary name and renamed when complete. A lock file beside
it keeps concurrent trials from creating the same data set twice.
"""

import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from fnostab.errors import DataError
from fnostab.ptychography.data.grid_lines import SPLITS, GridLines, Split, SplitName, simulate
from fnostab.ptychography.data.measured_scan import from_scan
from fnostab.ptychography.physics.input_files import input_sha256
from fnostab.ptychography.settings import DataConfig, ObjectConfig, ProbeConfig
from fnostab.record.settings import digest, file_sha256

FORMAT = 2  # increase it when the same settings give different numbers or files
MANIFEST = "manifest.json"
NUMBERS = ("photon_scale", "mean_amplitude", "mean_count")


def dataset_digest(config: DataConfig, seed: int) -> str:
    """16 hexadecimal digits that identify the data set of ``config`` with the data seed ``seed``.

    Probe, object and scan files are identified by their content, not by their path. ``config.seed`` is not used.

    Raises:
        DataError: a file without a known digest can't be read.
    """
    return digest(_identity(_with_digests(config), seed))


def prepare(config: DataConfig, seed: int, root: str | Path) -> GridLines:
    """Read the data set of ``config`` with the data seed ``seed`` from the cache ``root``; create it first if needed.

    Raises:
        DataError: the probe or object can't be used, the data set can't be written, or the cached one is damaged.
    """
    config = _with_digests(config)
    folder = Path(root) / dataset_digest(config, seed)
    try:
        if not folder.exists():
            _make(config, seed, folder)
    except OSError as error:
        raise DataError(
            f"can't write data set {folder}: {error.strerror or error}: free space there or choose another data folder"
        ) from error
    return _read(folder)


def _with_digests(config: DataConfig) -> DataConfig:
    """Settings with the digests of all their files filled in."""
    if config.path is not None:
        return config.model_copy(update={"sha256": (config.sha256 or input_sha256(config.path, "scan")).lower()})
    changed: dict[str, ProbeConfig | ObjectConfig] = {}
    if config.probe.path is not None:
        sha256 = config.probe.sha256 or input_sha256(config.probe.path, "probe")
        changed["probe"] = config.probe.model_copy(update={"sha256": sha256.lower()})
    if config.object.path is not None:
        sha256 = config.object.sha256 or input_sha256(config.object.path, "object")
        changed["object"] = config.object.model_copy(update={"sha256": sha256.lower()})
    return config.model_copy(update=changed)


def _identity(config: DataConfig, seed: int) -> dict[str, Any]:
    """Settings that determine the numbers of a data set."""
    if config.path is not None:
        return {"format": FORMAT, **config.model_dump(mode="json", include={"N", "fit", "sha256"})}
    settings = config.model_dump(mode="json", exclude={"seed", "probe", "object", "path", "sha256", "fit"})
    relevant = {"radius", "curvature_rad"} if config.probe.path is None else {"sha256"}
    probe = config.probe.model_dump(mode="json", include=relevant)
    of = config.object.model_dump(mode="json", include={"kind"} if config.object.path is None else {"sha256"})
    return {"format": FORMAT, "seed": seed, **settings, "probe": probe, "object": of}


def _make(config: DataConfig, seed: int, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if folder.exists():  # created by another process while this one waited
            return
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # left by a killed process
        partial.mkdir()
        try:
            made = simulate(config, seed) if config.path is None else from_scan(config)
            _write(made, _identity(config, seed), partial)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _write(data: GridLines, identity: dict[str, Any], folder: Path) -> None:
    sha256 = {}
    for name, tensor in _tensors(data).items():
        path = folder / f"{name}.npy"
        np.save(path, tensor.numpy(), allow_pickle=False)
        sha256[path.name] = file_sha256(path)
    manifest = {"identity": identity, **{name: getattr(data, name) for name in NUMBERS}, "sha256": sha256}
    if not data.noise_known:
        manifest["noise_known"] = False
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def _read(folder: Path) -> GridLines:
    remedy = f"delete {folder} to regenerate it"
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        numbers: dict[str, Any] = {name: float(manifest[name]) for name in NUMBERS}
        sha256 = dict(manifest["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / MANIFEST} is missing or damaged: {remedy}") from error

    def verified(name: str) -> Tensor:
        path = folder / f"{name}.npy"
        try:
            if file_sha256(path) != sha256.get(path.name):
                raise DataError(f"{path} is damaged, its sha256 is not the one in {MANIFEST}: {remedy}")
            return torch.from_numpy(np.load(path, allow_pickle=False))
        except OSError as error:
            raise DataError(f"can't read {path}: {error.strerror or error}: {remedy}") from error

    def split(name: SplitName) -> Split:
        return Split(**{field.name: verified(f"{name}_{field.name}") for field in fields(Split)})

    return GridLines(
        probe=verified("probe"),
        **numbers,
        train=split("train"),
        validation=split("validation"),
        test=split("test"),
        mask=verified("mask") if "mask.npy" in sha256 else None,
        noise_known=manifest.get("noise_known", True),
    )


def _tensors(data: GridLines) -> dict[str, Tensor]:
    """All tensors of a data set, by file name without suffix."""
    mask = {} if data.mask is None else {"mask": data.mask}
    return {"probe": data.probe, **mask} | {
        f"{split}_{field.name}": getattr(getattr(data, split), field.name)
        for split in SPLITS
        for field in fields(Split)
    }
