import numpy as np
import pytest
import torch

from fnostab.errors import DataError
from fnostab.ptychography.physics.far_field import far_field
from fnostab.ptychography.physics.probe import disk_probe, load_probe, make_probe
from fnostab.ptychography.settings import ProbeConfig
from fnostab.record.settings import file_sha256

N = 16


@pytest.fixture
def measured() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(N, N)) + 1j * rng.normal(size=(N, N))).astype(np.complex64)


def test_disk_has_the_area_and_the_edge_phase_that_were_asked_for():
    probe = disk_probe(256, radius=0.25, curvature_rad=3.0)
    assert probe.dtype == torch.complex64
    assert probe.abs().sum().item() == pytest.approx(np.pi * 64**2, rel=0.01)
    centre, edge = probe[128, 128], probe[128, 128 + 64]
    assert torch.angle(edge * centre.conj()).item() == pytest.approx(3.0, abs=0.1)
    assert edge.abs().item() == pytest.approx(0.5, abs=0.1)


def test_flat_disk_cannot_tell_an_object_from_its_twin_but_a_curved_one_can():
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(N, N, dtype=torch.complex64, generator=generator)
    twin = image.flip(0, 1).conj()
    flat, curved = disk_probe(N, 0.25, 0.0), disk_probe(N, 0.25, 3.0)
    patterns = [(far_field(flat * o).abs(), far_field(curved * o).abs()) for o in (image, twin)]
    torch.testing.assert_close(patterns[0][0], patterns[1][0])
    assert not torch.allclose(patterns[0][1], patterns[1][1], rtol=0.1)


def test_measured_probe_is_read_and_its_scale_does_not_matter(tmp_path, measured):
    np.savez(tmp_path / "a.npz", probe=measured)
    np.savez(tmp_path / "b.npz", probe=1000 * measured.astype(np.complex128))
    digest = file_sha256(tmp_path / "a.npz")
    np.testing.assert_array_equal(load_probe(tmp_path / "a.npz", N, digest.upper()), measured)
    a, b = (make_probe(ProbeConfig(path=str(tmp_path / name)), N) for name in ("a.npz", "b.npz"))
    torch.testing.assert_close(a, b)
    assert b.abs().max().item() == pytest.approx(1)


def _write(path, content):
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        np.savez(path, **content)
    else:
        with open(path, "wb") as file:
            np.save(file, content, allow_pickle=True)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not a readable NPZ"),
        (b"not an archive", "not a readable NPZ"),
        (np.zeros((N, N), complex), "bare array"),
        (np.array([{}], dtype=object), "not a readable NPZ"),
        ({"wave": np.ones((N, N), complex)}, r"arrays \['wave'\], expected 'probe'"),
        ({"probe": np.array([{}], dtype=object)}, "not a readable NPZ"),
        ({"probe": np.ones((N, 8), complex)}, r"shape \(16, 8\), expected \(16, 16\)"),
        ({"probe": np.ones((N, N))}, "float64, expected a complex"),
        ({"probe": np.full((N, N), np.nan + 0j)}, "not finite"),
        ({"probe": np.full((N, N), 1e300 + 0j)}, "not finite"),
        ({"probe": np.zeros((N, N), complex)}, "zero everywhere"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_unusable_probe_is_refused_in_one_line_that_names_the_file(tmp_path, content, complaint):
    path = tmp_path / "probe.npz"
    _write(path, content)
    with pytest.raises(DataError, match=complaint) as caught:
        load_probe(path, N)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_truncated_or_exchanged_probe_is_refused(tmp_path, measured):
    path = tmp_path / "probe.npz"
    with pytest.raises(DataError, match="No such file"):
        load_probe(path, N)
    with pytest.raises(DataError, match="directory"):
        load_probe(tmp_path, N)
    np.savez_compressed(path, probe=measured)
    with pytest.raises(DataError, match=f"expected {'0' * 64}"):
        load_probe(path, N, "0" * 64)
    content = bytearray(path.read_bytes())
    content[200:300] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a readable NPZ"):
        load_probe(path, N)
