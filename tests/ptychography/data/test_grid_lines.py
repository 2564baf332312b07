import itertools

import numpy as np
import pytest
import torch

from fnostab.errors import DataError
from fnostab.ptychography.data import grid_lines, simulate
from fnostab.ptychography.data.grid_lines import SPLITS
from fnostab.ptychography.physics.detector import photon_scale
from fnostab.ptychography.physics.far_field import far_field
from fnostab.ptychography.physics.objects import object_areas
from fnostab.ptychography.physics.scan import centre_crop, extract_patches, stitch
from fnostab.ptychography.settings import ObjectConfig


def _splits(data):
    return [getattr(data, name) for name in SPLITS]


def _changed(config, **settings):
    return config.model_copy(update=settings)


def test_shapes_and_dtypes(data):
    for split, n in zip(_splits(data), (81, 25, 25), strict=True):
        assert split.amplitudes.shape == (n, 1, 16, 16)
        assert split.positions.shape == (n, 2)
        assert split.image_index.tolist() == [0] * n
        assert split.objects.shape == (1, 48, 48)
        assert split.amplitudes.dtype == torch.float32
        assert split.positions.dtype == split.image_index.dtype == torch.int64
        assert split.objects.dtype == data.probe.dtype == torch.complex64


def test_training_patterns_hold_the_photon_budget(data):
    photons = data.photon_scale * data.train.amplitudes.double().square().sum(dim=(-2, -1))
    assert photons.mean().item() == pytest.approx(1e6, rel=5 / (81e6) ** 0.5)
    assert data.mean_count == pytest.approx(1e6 / 16**2, rel=1e-3)
    assert data.mean_amplitude == pytest.approx(data.train.amplitudes.mean().item())


def test_measured_amplitudes_are_the_physics_of_the_objects_up_to_photon_noise(data):
    for split in _splits(data):
        clean = far_field(data.probe * extract_patches(split.objects[0], split.positions, 16)).abs()[:, None]
        error = (split.amplitudes - clean) * data.photon_scale**0.5  # of a Poisson count's root: 1/2
        assert error[clean.square() * data.photon_scale > 20].std().item() == pytest.approx(0.5, rel=0.05)


def test_scan_covers_the_object_without_gaps(data, config):
    split = data.test
    patches = extract_patches(split.objects[0], split.positions, config.N)
    stitched = stitch(patches, split.positions, centre_crop(config.N, config.scan_stride_test))
    torch.testing.assert_close(stitched.image, stitched.cut(split.objects[0]))


def test_training_validation_and_test_are_independent_objects(data):
    for a, b in itertools.combinations(_splits(data), 2):
        contrasts = torch.stack([s.objects[0].abs().flatten() for s in (a, b)])
        assert torch.corrcoef(contrasts)[0, 1].abs() < 0.7  # of equal objects: 1
        assert not torch.equal(a.amplitudes[:25], b.amplitudes[:25])


def test_data_follows_from_the_seed_alone(config, data):
    again, other = simulate(_changed(config, seed=99), seed=0), simulate(config, seed=1)
    assert again.photon_scale == data.photon_scale
    for a, b, c in zip(_splits(data), _splits(again), _splits(other), strict=True):
        assert torch.equal(a.amplitudes, b.amplitudes)
        assert torch.equal(a.objects, b.objects)
        assert not torch.equal(a.objects, c.objects)


def test_random_state_of_the_process_is_neither_read_nor_changed(config, data):
    state = torch.random.get_rng_state()
    again = simulate(config, seed=0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(again.train.amplitudes, data.train.amplitudes)


def test_more_training_objects_leave_validation_and_test_objects_alone(config, data):
    more = simulate(_changed(config, nimgs_train=3), seed=0)
    assert torch.equal(more.train.image_index, torch.arange(3).repeat_interleave(81))
    assert torch.equal(more.train.objects[0], data.train.objects[0])
    for name in ("validation", "test"):
        mine, theirs = getattr(more, name), getattr(data, name)
        assert torch.equal(mine.objects, theirs.objects)
        assert torch.equal(mine.positions, theirs.positions)
        noise = 1 / data.photon_scale**0.5
        torch.testing.assert_close(mine.amplitudes, theirs.amplitudes, rtol=0, atol=8 * noise)


def test_one_photon_scale_fixed_on_the_training_set_serves_all_splits(data):
    clean = far_field(data.probe * extract_patches(data.train.objects[0], data.train.positions, 16)).abs().square()
    assert data.photon_scale == pytest.approx(photon_scale(clean, 1e6))
    for split in _splits(data):
        counts = data.photon_scale * split.amplitudes.double().square()
        torch.testing.assert_close(counts, counts.round(), rtol=2e-7, atol=1e-6)  # photons are whole


def test_missing_probe_is_refused(config):
    measured = config.probe.model_copy(update={"path": "nowhere.npz"})
    with pytest.raises(DataError, match=r"nowhere\.npz"):
        simulate(_changed(config, probe=measured), seed=0)


@pytest.mark.parametrize("nphotons", [1e-3, 3.0])
def test_patterns_without_a_photon_are_refused(config, nphotons):
    with pytest.raises(DataError, match=rf"nphotons={nphotons:g}: \d+ of 81 train patterns hold no photon"):
        simulate(_changed(config, nphotons=nphotons), seed=0)
    assert simulate(_changed(config, nphotons=100.0), seed=0).mean_count > 0


def test_the_objects_of_all_splits_come_from_one_reading_of_the_file(config, tmp_path, monkeypatch):
    """In the order training, validation, test, as long as the areas last."""
    np.savez(tmp_path / "scan.npz", object=np.random.default_rng(0).uniform(1, 2, (144, 96)))
    measured = _changed(config, object=ObjectConfig(path=str(tmp_path / "scan.npz")), nimgs_train=2)
    readings = []

    def counted(*arguments):
        readings.append(object_areas(*arguments))
        return readings[-1]

    monkeypatch.setattr(grid_lines, "object_areas", counted)
    made = simulate(measured, seed=3)
    (areas,) = readings
    assert [len(split.objects) for split in _splits(made)] == [2, 1, 1]
    assert torch.equal(torch.cat([split.objects for split in _splits(made)]), torch.stack(areas))
