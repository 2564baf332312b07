import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from skimage.io import imsave

from fnostab.errors import DataError
from fnostab.ptychography.physics.objects import blur, make_object, object_areas
from fnostab.ptychography.settings import DataConfig
from fnostab.ptychography.task import Ptychography


def _object(seed=0, size=96, n_lines=60, set_phi=True):
    config = DataConfig(object_size=size, n_lines=n_lines, set_phi=set_phi)
    return make_object(config, torch.Generator().manual_seed(seed))


def test_blur_of_a_point_is_the_sum_of_three_gaussians():
    canvas = np.zeros((129, 129))
    canvas[64, 64] = 1
    x = np.arange(129) - 64
    expected = sum(w * np.outer(norm.pdf(x, scale=s), norm.pdf(x, scale=s)) for w, s in ((1, 1), (2, 5), (5, 10)))
    # the tails end at four standard deviations
    np.testing.assert_allclose(blur(canvas), expected, rtol=0.01, atol=1e-5)


def test_amplitude_has_mean_one_and_shows_lines():
    image = _object(set_phi=False)
    assert image.dtype == torch.complex64
    assert image.shape == (96, 96)
    amplitude = image.abs()
    assert amplitude.mean().item() == pytest.approx(1)
    assert amplitude.std() > 0.1


def test_phase_is_zero_unless_set_phi():
    without, with_phase = _object(set_phi=False), _object(set_phi=True)
    assert not without.imag.any()
    amplitude = with_phase.abs()
    torch.testing.assert_close(amplitude, without.abs())
    expected = math.pi * torch.tanh((amplitude - amplitude.max() / 2) / (3 * amplitude.mean()))
    torch.testing.assert_close(with_phase.angle(), expected, rtol=1e-4, atol=1e-5)


def test_object_follows_from_its_seed():
    torch.testing.assert_close(_object(seed=1), _object(seed=1), rtol=0, atol=0)
    assert not torch.allclose(_object(seed=1), _object(seed=2), rtol=0.1)


def test_empty_object_is_refused():
    with pytest.raises(DataError, match="n_lines=1"):
        _object(n_lines=1, seed=105, size=120)  # its line lies in a corner of the canvas


def _config(**settings):
    return DataConfig(**{"N": 16, "object_size": 48, "n_lines": 40, "scan_stride_test": 8, "set_phi": True, **settings})


def _made(seed=0, **settings):
    return make_object(_config(**settings), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["lines", "gaussian_field", "dead_leaves", "siemens_star"])
def test_every_kind_has_mean_one_contrast_and_a_seed(kind):
    image = _made(object={"kind": kind})
    assert (image.dtype, image.shape) == (torch.complex64, (48, 48))
    assert image.abs().mean().item() == pytest.approx(1, rel=1e-5)
    assert image.abs().min() > 0
    assert image.abs().std() > 0.1 < image.angle().std()
    assert torch.equal(image, _made(object={"kind": kind}))
    assert not torch.allclose(image, _made(seed=1, object={"kind": kind}), rtol=0.01)
    torch.testing.assert_close(_made(object={"kind": kind}, set_phi=False), image.abs() + 0j)


def test_an_object_of_phase_alone_keeps_the_phase():
    image, phase = _made(), _made(phase_only=True)
    torch.testing.assert_close(phase.abs(), torch.ones(48, 48))
    torch.testing.assert_close(phase.angle(), image.angle())
    with pytest.raises(ValueError, match=r"phase_only=true, but without a phase .* set set_phi=true"):
        _config(phase_only=True, set_phi=False)


def _areas(path, count=3, **settings):
    config = _config(object={"path": str(path)}, **settings)
    return object_areas(config, count, torch.Generator().manual_seed(0))


def test_areas_of_an_image_have_no_pixel_in_common(tmp_path):
    grey = np.arange(100 * 100, dtype=np.uint16).reshape(100, 100) + 1
    imsave(tmp_path / "ramp.png", grey, check_contrast=False)
    areas = _areas(tmp_path / "ramp.png", 4, set_phi=False)
    cut = [grey[r : r + 48, c : c + 48].astype(float) for r in (0, 48) for c in (0, 48)]
    expected = {tuple(np.round(one[0, :3] / one.mean(), 4)) for one in cut}
    assert {tuple(np.round(area[0, :3].real.double().numpy(), 4)) for area in areas} == expected
    assert len(expected) == 4


def test_a_complex_object_keeps_its_phase(tmp_path):
    rng = np.random.default_rng(0)
    field = (1 + rng.random((48, 144))) * np.exp(1j * rng.uniform(-1, 1, (48, 144)))
    np.savez(tmp_path / "object.npz", object=field)
    areas = _areas(tmp_path / "object.npz")
    (first,) = [area for area in areas if np.isclose(area[0, 0].angle(), np.angle(field[0, 0]))]
    np.testing.assert_allclose(first.angle(), np.angle(field[:, :48]), atol=1e-5)
    np.testing.assert_allclose(first.abs(), np.abs(field[:, :48]) / np.abs(field[:, :48]).mean(), rtol=1e-5)
    assert not _areas(tmp_path / "object.npz", set_phi=False)[0].imag.any()
    assert _areas(tmp_path / "object.npz", phase_only=True)[0].abs().std() < 1e-6


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.ones((48, 100)), "48 x 100: training, validation and test need 3 areas of data.object_size=48"),
        (np.zeros((48, 144)), "is zero in a whole area"),
        (-np.ones((48, 144)), "complex or not negative"),
        (np.full((48, 144), np.nan), "finite"),
        (np.ones((48, 144, 3)), r"shape \(48, 144, 3\)"),
        (np.full((48, 144), "bright"), r"<U6 of shape \(48, 144\), expected numbers"),
        (np.zeros((48, 144), "datetime64[s]"), r"datetime64\[s\] of shape \(48, 144\), expected numbers"),
        (np.ones((0, 144)), r"shape \(0, 144\)"),
    ],
)
def test_a_file_that_gives_no_objects_is_refused(tmp_path, array, said):
    np.savez(tmp_path / "object.npz", object=array)
    with pytest.raises(DataError, match=said):
        _areas(tmp_path / "object.npz")


def test_a_file_that_is_no_image_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing to see")
    with pytest.raises(DataError, match="neither an image nor an NPZ file"):
        _areas(tmp_path / "notes.txt")
    with pytest.raises(DataError, match=r"can't read the object .*absent.png: .* check data.object.path"):
        _areas(tmp_path / "absent.png")


@pytest.mark.parametrize("name", ["scan.NPZ", "scan.Npz"])
def test_an_archive_is_known_by_its_ending_however_it_is_written(tmp_path, name):
    wanted = np.random.default_rng(0).uniform(1, 2, (48, 144))
    with (tmp_path / name).open("wb") as file:
        np.savez(file, background=np.full((48, 144), 7.0), object=wanted)
    amplitudes = torch.cat([area.abs() for area in _areas(tmp_path / name)], dim=1)
    assert amplitudes.std() > 0.1  # the background's is 0


def test_grey_and_colour_lose_their_alpha(tmp_path):
    """The picture is grey, so that its luminance is its grey value in any of the forms."""
    grey = np.random.default_rng(0).integers(1, 255, (48, 144), dtype=np.uint8)
    alpha = np.full_like(grey, 255)
    forms = {
        "l": grey,
        "la": np.dstack([grey, alpha]),
        "rgb": np.dstack([grey] * 3),
        "rgba": np.dstack([grey] * 3 + [alpha]),
    }
    for form, pixels in forms.items():
        imsave(tmp_path / f"{form}.tiff", pixels, check_contrast=False)
    plain, *others = (_areas(tmp_path / f"{form}.tiff", set_phi=False) for form in forms)
    for areas in others:
        for area, expected in zip(areas, plain, strict=True):
            torch.testing.assert_close(area, expected)


@pytest.mark.parametrize("shape", [(70, 64, 64), (5, 48, 144, 3)])
def test_an_image_of_several_pages_is_not_taken_for_colour(tmp_path, shape):
    imsave(tmp_path / "pages.tiff", np.ones(shape, np.uint8), check_contrast=False)
    with pytest.raises(
        DataError, match=r"pages.tiff has shape \(" + ", ".join(map(str, shape)) + r"\), expected one image"
    ):
        _areas(tmp_path / "pages.tiff")


def test_a_path_that_no_file_can_have_is_refused_where_a_study_is_read_too():
    with pytest.raises(DataError, match=r"can't read the object 'a\\x00b.png': embedded null byte; check data.object"):
        Ptychography().resolve([{"data.object.path": "a\0b.png"}], "small")
