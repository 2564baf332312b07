"""Simulated diffraction patterns of independent training, validation and test objects."""

from dataclasses import dataclass
from itertools import islice
from typing import Literal, get_args

import torch
from torch import Tensor

from fnostab.errors import DataError
from fnostab.ptychography.physics.detector import amplitude_of, detect, photon_scale
from fnostab.ptychography.physics.far_field import far_field
from fnostab.ptychography.physics.objects import make_object, object_areas
from fnostab.ptychography.physics.probe import make_probe
from fnostab.ptychography.physics.scan import extract_patches, scan_positions
from fnostab.ptychography.settings import DataConfig
from fnostab.seeding import stream_seed

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
CHUNK = 512  # patterns per batch of the simulation, which limits the memory of the complex exit waves


@dataclass(frozen=True)
class Split:
    """Diffraction patterns of one split with their scan positions and objects.

    Attributes:
        amplitudes: measured amplitudes, float32 of shape (n, 1, N, N).
        positions: top-left corner (row, column) of each pattern's patch in pixels, shape (n, 2); int64 for simulated
            data, float64 for measured data, whose positions are fractional.
        image_index: index into ``objects`` for each pattern, int64 of shape (n,).
        objects: true objects, complex64 of shape (k, H, W). For measured data the reference (k = 1), if there is one,
            else k = 0.
    """

    amplitudes: Tensor
    positions: Tensor
    image_index: Tensor
    objects: Tensor


@dataclass(frozen=True)
class GridLines:
    """Data set with training, validation and test splits, simulated or measured.

    All amplitudes have the same scale: amplitude = sqrt(counts / photon_scale).

    Attributes:
        probe: complex64 of shape (N, N).
        photon_scale: photons per unit of intensity, computed from the training set.
        mean_amplitude: mean over all pixels of the training patterns.
        mean_count: mean photons per pixel, over all pixels of the training patterns.
        train: training patterns.
        validation: patterns that decide on checkpoints and outcomes.
        test: patterns used once, at the end of a trial.
        mask: valid pixels of measured data, bool of shape (N, N); None for simulated data, where all are valid.
        noise_known: whether counts are photon counts, so that the noise is Poisson noise.
    """

    probe: Tensor
    photon_scale: float
    mean_amplitude: float
    mean_count: float
    train: Split
    validation: Split
    test: Split
    mask: Tensor | None = None
    noise_known: bool = True

    @property
    def whole(self) -> Split:
        """All splits of a measured scan joined into one; they share one object."""
        splits = (self.train, self.validation, self.test)
        amplitudes, positions, image_index = (
            torch.cat([getattr(each, name) for each in splits]) for name in ("amplitudes", "positions", "image_index")
        )
        return Split(amplitudes, positions, image_index, self.test.objects)


def simulate(config: DataConfig, seed: int) -> GridLines:
    """Simulate the data set of ``config``, reproducibly for a given ``seed``. ``config.seed`` is not used.

    Every object and its photon noise have their own random stream, so validation and test objects do not depend on
    the number of training objects. Their photon counts depend on it slightly, through the photon scale.

    Raises:
        DataError: a probe or object file can't be used, an object is empty, or a pattern has no photon.
    """
    probe = make_probe(config.probe, config.N)
    objects = _objects(config, seed)
    train = _scene("train", objects["train"], config.scan_stride_train, config.N, probe)
    validation = _scene("validation", objects["validation"], config.scan_stride_test, config.N, probe)
    test = _scene("test", objects["test"], config.scan_stride_test, config.N, probe)

    scale = photon_scale(train.intensity.flatten(0, 1), config.nphotons)
    measured = _measure(train, scale, config.nphotons, seed)
    return GridLines(
        probe=probe,
        photon_scale=scale,
        mean_amplitude=float(measured.amplitudes.mean(dtype=torch.float64)),
        mean_count=scale * float(measured.amplitudes.square().mean(dtype=torch.float64)),
        train=measured,
        validation=_measure(validation, scale, config.nphotons, seed),
        test=_measure(test, scale, config.nphotons, seed),
    )


@dataclass(frozen=True)
class _Scene:
    """Objects (k, H, W), positions (n, 2) and noise-free intensities (k, n, N, N)."""

    name: SplitName
    objects: Tensor
    positions: Tensor
    intensity: Tensor


def _scene(name: SplitName, objects: list[Tensor], stride: int, N: int, probe: Tensor) -> _Scene:
    positions = scan_positions(len(objects[0]), N, stride)
    intensity = torch.empty(len(objects), len(positions), N, N)
    for image, patterns in zip(objects, intensity, strict=True):
        for corners, chunk in zip(positions.split(CHUNK), patterns.split(CHUNK), strict=True):
            chunk.copy_(far_field(probe * extract_patches(image, corners, N)).abs().square())
    return _Scene(name, torch.stack(objects), positions, intensity)


def _objects(config: DataConfig, seed: int) -> dict[SplitName, list[Tensor]]:
    counts = {split: config.nimgs_train if split == "train" else config.nimgs_test for split in SPLITS}
    if config.object.path is None:
        return {
            split: [make_object(config, _stream(seed, split, "object", k)) for k in range(n)]
            for split, n in counts.items()
        }
    areas = iter(object_areas(config, sum(counts.values()), _stream(seed, "all", "object", 0)))
    return {split: list(islice(areas, n)) for split, n in counts.items()}


def _measure(scene: _Scene, scale: float, nphotons: float, seed: int) -> Split:
    amplitudes = torch.empty_like(scene.intensity)
    for k in range(len(scene.objects)):
        noise = _stream(seed, scene.name, "noise", k)
        for chunk, intensity in zip(amplitudes[k].split(CHUNK), scene.intensity[k].split(CHUNK), strict=True):
            chunk.copy_(amplitude_of(detect(intensity, scale, noise), scale))
    if empty := int((amplitudes.flatten(2).amax(dim=2) == 0).sum()):
        raise DataError(
            f"nphotons={nphotons:g}: {empty} of {amplitudes.shape[:2].numel()} {scene.name} patterns hold no photon at "
            "all, so that nothing can be learnt from them: raise data.nphotons"
        )
    n_images, n_positions = scene.intensity.shape[:2]
    return Split(
        amplitudes=amplitudes.flatten(0, 1)[:, None],
        positions=scene.positions.repeat(n_images, 1),
        image_index=torch.arange(n_images).repeat_interleave(n_positions),
        objects=scene.objects,
    )


def _stream(seed: int, split: str, what: str, image: int) -> torch.Generator:
    return torch.Generator().manual_seed(stream_seed(seed, split, what, str(image)))
