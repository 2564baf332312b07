import numpy as np
import pytest
import torch
from small_scan import SIDE, simulated

from fnostab.errors import ConfigError, DataError
from fnostab.ptychography.data import dataset_digest, from_scan, pattern_counts, prepare, probe_of
from fnostab.ptychography.data.measured_scan import areas
from fnostab.ptychography.physics.far_field import far_field
from fnostab.ptychography.physics.scan import extract_patches
from fnostab.ptychography.scans.scan_file import Scan, probe_width, write_scan
from fnostab.ptychography.settings import DataConfig, TrialConfig

pytest.importorskip("h5py")
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def small():
    return simulated(extent=84)


@pytest.fixture(scope="module")
def scan(small):
    mask = np.ones((SIDE, SIDE), bool)
    mask[3, 4] = False
    return Scan(small.counts.astype(np.float32), "counts", small.probe, small.corners, mask, small.object)


@pytest.fixture(scope="module")
def path(scan, tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    write_scan(scan, path)
    return path


def config(path, **settings):
    return DataConfig(path=str(path), set_phi=True, **({"N": SIDE} | settings))


def test_areas_are_a_probe_apart_and_hold_patterns_of_their_own(small):
    width = probe_width(small.probe)
    found = areas(small.corners, width)
    assert not set(found["train"]) & set(found["validation"]) | set(found["validation"]) & set(found["test"])
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        apart = np.abs(small.corners[found[one]][:, None] - small.corners[found[other]][None]).max(axis=2)
        assert apart.min() >= width
    assert len(found["train"]) > len(small.corners) / 3


def test_a_scan_too_small_for_gaps_is_refused(small):
    with pytest.raises(DataError, match="leaves no train area with gaps of 60"):
        areas(small.corners, 60)


def test_the_physics_of_a_scan_gives_its_amplitudes(small, path):
    data = from_scan(config(path))
    for split in (data.train, data.validation, data.test):
        true = extract_patches(split.objects[0], split.positions, SIDE)
        predicted = far_field(data.probe * true).abs()
        error = (predicted - split.amplitudes[:, 0])[:, data.mask].abs().sum() / split.amplitudes.sum()
        assert error < 0.1  # whole pixels make it 0.2: it is photon noise and linear interpolation
        assert split.amplitudes[:, 0, 3, 4].abs().max() == 0
    assert data.mean_amplitude == pytest.approx(float(data.train.amplitudes[:, 0][:, data.mask].mean()), rel=1e-5)
    assert data.mean_count == pytest.approx(small.counts.mean(), rel=0.05)
    assert {name: len(getattr(data, name).positions) for name in SPLITS} == pattern_counts(config(path))
    assert torch.equal(data.probe, probe_of(config(path)))


def test_a_cropped_detector_has_larger_pixels(small, path):
    whole, cropped = from_scan(config(path)), from_scan(config(path, N=8))
    torch.testing.assert_close(cropped.train.positions, whole.train.positions / 2)
    kept = whole.train.amplitudes[:, :, 4:12, 4:12].square() * whole.photon_scale
    torch.testing.assert_close(cropped.train.amplitudes.square() * cropped.photon_scale, kept)
    true = extract_patches(cropped.train.objects[0], cropped.train.positions, 8)
    predicted = far_field(cropped.probe * true).abs()
    assert (predicted - cropped.train.amplitudes[:, 0]).abs().sum() / cropped.train.amplitudes.sum() < 0.2


def test_probe_and_positions_of_a_cropped_detector_are_those_of_a_known_scan(tmp_path):
    """Probe and object have few frequencies, so that half the detector sees all but what edges scatter."""
    random, side, extent = np.random.default_rng(0), 32, 128

    spectrum = np.zeros((extent, extent), complex)
    spectrum[:16, :16] = random.normal(size=(16, 16, 2)) @ [1, 1j]
    field = np.fft.ifft2(np.roll(spectrum, (-8, -8), axis=(0, 1)))
    image = (1 + 0.3 * field / field.std()).astype(np.complex64)
    middle = np.exp(-(((np.arange(side) - side // 2) / 4) ** 2))  # narrow in space and in frequency
    probe = (middle[:, None] * middle).astype(np.complex64)
    corners = np.stack(np.meshgrid(*[np.arange(0.0, extent - side - 1, 6)] * 2, indexing="ij"), -1).reshape(-1, 2)
    waves = [probe * image[int(r) : int(r) + side, int(c) : int(c) + side] for r, c in corners]
    intensity = np.abs(np.fft.fftshift(np.fft.fft2(waves, norm="ortho"), axes=(1, 2))) ** 2
    whole = Scan(intensity.astype(np.float32), "intensity", probe, corners, np.ones((side, side), bool), image)
    write_scan(whole, tmp_path / "scan.h5")
    train = (data := from_scan(config(tmp_path / "scan.h5", N=side // 2))).train

    def error(positions, probe):
        predicted = far_field(probe * extract_patches(train.objects[0], positions, side // 2)).abs()
        predicted = predicted * (train.amplitudes.square().sum() / predicted.square().sum()).sqrt()
        return float((predicted - train.amplitudes[:, 0]).abs().sum() / train.amplitudes.sum())

    right = error(train.positions, data.probe)
    assert right < 0.02
    assert error(train.positions + 1, data.probe) > 3 * right
    assert error(train.positions, torch.roll(data.probe, 1, 0)) > 3 * right


@pytest.mark.parametrize(("side", "N"), [(32, 16), (30, 15)])
def test_a_binned_detector_has_a_smaller_frame(tmp_path, side, N):
    wide, margin = simulated(extent=84), (side - SIDE) // 2
    padded = np.zeros((side, side), np.complex64)
    padded[margin : margin + SIDE, margin : margin + SIDE] = wide.probe
    inside = (wide.corners >= margin) & (wide.corners <= 83 - side + margin)
    corners = wide.corners[inside.all(axis=1)] - margin
    frames = []
    frequencies = np.fft.fftfreq(side)
    for row, column in corners:
        ramp = np.exp(-2j * np.pi * (frequencies[:, None] * (row % 1) + frequencies * (column % 1)))
        wave = np.fft.ifft2(np.fft.fft2(padded) * ramp) * wide.object[int(row) :, int(column) :][:side, :side]
        frames.append(np.abs(np.fft.fftshift(np.fft.fft2(wave, norm="ortho"))) ** 2)
    mask = np.ones((side, side), bool)
    write_scan(
        Scan(np.array(frames, np.float32), "intensity", padded, corners, mask, wide.object), tmp_path / "wide.h5"
    )
    data = from_scan(config(tmp_path / "wide.h5", N=N, fit="bin"))
    true = extract_patches(data.train.objects[0], data.train.positions, N)
    predicted = far_field(data.probe * true).abs()
    error = (predicted - data.train.amplitudes[:, 0]).abs().sum() / data.train.amplitudes.sum()
    shifted = extract_patches(data.train.objects[0], data.train.positions - 1, N)
    off = (
        far_field(data.probe * shifted).abs() - data.train.amplitudes[:, 0]
    ).abs().sum() / data.train.amplitudes.sum()
    assert error < min(0.15, 0.6 * off)
    assert not data.noise_known


def test_a_prepared_data_set_is_the_scan_and_is_named_by_its_content(path, tmp_path):
    made, read = from_scan(config(path)), prepare(config(path), 0, tmp_path)
    assert torch.equal(made.mask, read.mask)
    assert torch.equal(made.test.positions, read.test.positions)
    assert read.noise_known
    copy = tmp_path / "copy.h5"
    copy.write_bytes(path.read_bytes())
    assert dataset_digest(config(copy), 0) == dataset_digest(config(path), 7)
    assert dataset_digest(config(path, N=8), 0) != dataset_digest(config(path), 0)
    with pytest.raises(DataError, match=r"expected 0000: .*data\.sha256"):
        from_scan(config(path, sha256="0000"))


def test_a_size_that_does_not_fit_is_refused(path):
    with pytest.raises(DataError, match=r"patterns of 16 x 16: data.N=64, expected at most 16"):
        from_scan(config(path, N=64))
    with pytest.raises(DataError, match=r"holds .* of the probe"):
        from_scan(config(path, N=4, fit="bin"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"data.path": "scan.h5"}, "set_phi=false has no meaning"),
        ({"data.path": "scan.h5", "data.set_phi": True, "data.nphotons": 1e6}, "nphotons has no effect with data.path"),
        ({"data.path": "scan.h5", "data.set_phi": True, "data.object.kind": "dead_leaves"}, "object has no effect"),
        ({"data.path": "scan.h5", "data.set_phi": True, "vary": ["data"]}, "vary: data has no effect"),
        ({"data.fit": "bin"}, "fit=bin has no effect without a measured scan"),
    ],
)
def test_settings_of_the_simulation_are_refused_beside_a_scan(settings, said):
    with pytest.raises(ConfigError, match=said):
        TrialConfig.from_dotted(settings)


def test_where_the_file_lies_is_no_identity():
    here, there = (
        TrialConfig.from_dotted({"data.path": path, "data.set_phi": True, "data.sha256": "ab"})
        for path in ("/a/scan.h5", "/b/scan.h5")
    )
    other = TrialConfig.from_dotted({"data.path": "/a/scan.h5", "data.set_phi": True, "data.sha256": "cd"})
    assert here.config_hash == there.config_hash != other.config_hash
    assert "data.sha256" not in TrialConfig().identity()
