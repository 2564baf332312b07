import re
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from small_scan import DETECTOR_PIXEL, PIXEL, SIDE, write_cxi, write_npz

from fnostab.errors import DataError
from fnostab.ptychography.cli.data import command
from fnostab.ptychography.scans.importing import ImportOptions, import_scan
from fnostab.ptychography.scans.orientation import ORIENTATIONS
from fnostab.ptychography.scans.resizing import crop_probe
from fnostab.ptychography.scans.scan_file import Scan, read_scan, write_scan

h5py = pytest.importorskip("h5py")
ONE_SWEEP = ImportOptions(sweeps=1, orientation="+row,+column")


def relative(corners):
    return corners - corners.min(axis=0)


def test_the_same_scan_comes_out_of_three_layouts(small, tmp_path):
    tike = import_scan(write_npz(tmp_path / "tike.npz.bz2", small.tike), ONE_SWEEP).scan
    pinn = import_scan(write_npz(tmp_path / "pinn.npz", small.ptychopinn), ONE_SWEEP).scan
    cxi = import_scan(write_cxi(tmp_path / "scan.cxi", small), ONE_SWEEP).scan

    assert (tike.kind, pinn.kind, cxi.kind) == ("counts", "amplitude", "counts")
    np.testing.assert_array_equal(tike.diffraction, small.counts)
    np.testing.assert_array_equal(cxi.diffraction, small.counts)
    np.testing.assert_allclose(pinn.intensity.sum(), small.counts.sum() / 3e4, rtol=1e-5)
    for scan in (tike, cxi):
        np.testing.assert_allclose(scan.positions, relative(small.corners), atol=1e-4)
    np.testing.assert_allclose(pinn.positions, small.corners, atol=1e-9)  # in pixels of its object
    np.testing.assert_array_equal(pinn.object, small.object)
    np.testing.assert_array_equal(pinn.probe, small.probe)
    assert cxi.pixel_size == pytest.approx(PIXEL)
    assert (tike.pixel_size, pinn.pixel_size) == (None, None)


def test_a_file_of_any_names_is_read_by_a_map(small, tmp_path):
    arrays = {"frames": small.counts, "light": small.probe, "y": small.corners[:, 0], "x": small.corners[:, 1]}
    places = {"diffraction": "frames", "probe": "light", "rows": "y", "columns": "x"}
    with h5py.File(tmp_path / "own.h5", "w") as file:
        for name, array in arrays.items():
            file[f"scan/{name}"] = array
    options = replace(ONE_SWEEP, kind="counts", of="corner")
    npz = import_scan(write_npz(tmp_path / "own.npz", arrays), replace(options, mapped=places)).scan
    of_hdf5 = {name: f"scan/{place}" for name, place in places.items()}
    hdf5 = import_scan(tmp_path / "own.h5", replace(options, mapped=of_hdf5)).scan
    for scan in (npz, hdf5):
        np.testing.assert_allclose(scan.positions, relative(small.corners))
        assert scan.sources["positions"].endswith("x")


def test_a_scan_file_gives_back_what_was_written(small, tmp_path):
    scan = import_scan(write_cxi(tmp_path / "scan.cxi", small), ONE_SWEEP).scan
    (tmp_path / "mine").write_text("kept")
    (tmp_path / "scan.h5.partial").symlink_to(tmp_path / "mine")
    write_scan(scan, tmp_path / "scan.h5")
    assert (tmp_path / "mine").read_text() == "kept"
    again = read_scan(tmp_path / "scan.h5")
    for name in ("diffraction", "probe", "positions", "mask", "object"):
        np.testing.assert_array_equal(getattr(again, name), getattr(scan, name))
    assert (again.kind, again.pixel_size, again.sources) == (scan.kind, scan.pixel_size, scan.sources)
    assert [path.name for path in tmp_path.glob("scan.h5*")] == ["scan.h5"]


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("mask", lambda mask: mask.astype(np.uint8), "mask is (16, 16) uint8, expected 2 dimensions of bool"),
        ("probe", np.abs, "probe is (16, 16) float32, expected 2 dimensions of complex numbers"),
        ("probe", np.zeros_like, "a probe that is zero"),
        ("positions", lambda positions: positions * np.nan, "values that are not finite"),
        ("positions", lambda positions: positions + 9, "some positions lie outside the object"),
        ("positions", lambda positions: positions.astype("S8"), "positions is (100, 2) |S8"),
        ("diffraction", lambda diffraction: diffraction - 1, "patterns that are negative or not finite"),
        ("diffraction", lambda diffraction: diffraction * np.nan, "patterns that are negative or not finite"),
        ("diffraction", lambda diffraction: diffraction[:, :12], "shapes do not fit each other"),
        ("object", lambda image: image[:-9], "some positions lie outside the object"),
    ],
)
def test_a_scan_file_that_was_changed_by_hand_is_checked(small, tmp_path, name, change, said):
    path = tmp_path / "scan.h5"
    counts, mask = small.counts.astype(np.float32), np.ones((SIDE, SIDE), bool)
    write_scan(Scan(counts, "counts", small.probe, small.corners, mask, small.object), path)
    with h5py.File(path, "r+") as file:
        attributes, changed = dict(file[name].attrs), change(file[name][()])
        del file[name]
        file[name] = changed
        file[name].attrs.update(attributes)
    with pytest.raises(DataError, match=re.escape(said)):
        read_scan(path)


@pytest.mark.parametrize("name", [*ORIENTATIONS][1:])
def test_positions_that_are_turned_are_turned_back(small, tmp_path, name):
    swap, rows, columns = ORIENTATIONS[name]
    signed = small.corners * (rows, columns)  # what `name` makes of the positions in the file
    turned = replace(small, corners=signed[:, ::-1] if swap else signed)
    imported = import_scan(write_npz(tmp_path / "scan.npz", turned.tike), ImportOptions(sweeps=1))
    np.testing.assert_allclose(imported.scan.positions, relative(small.corners), atol=1e-4)
    assert any(f"orientation of the positions is {name}" in line for line in imported.lines)


def error_of_the_truth(small):
    """Relative amplitude error that photon noise alone makes."""
    frequencies, predicted = np.fft.fftfreq(SIDE), []
    for row, column in small.corners:
        ramp = np.exp(-2j * np.pi * (frequencies[:, None] * (row % 1) + frequencies * (column % 1)))
        moved = np.fft.ifft2(np.fft.fft2(small.probe) * ramp)
        patch = small.object[int(row) : int(row) + SIDE, int(column) : int(column) + SIDE]
        predicted.append(np.abs(np.fft.fftshift(np.fft.fft2(moved * patch))))
    measured, amplitudes = np.sqrt(small.counts), np.array(predicted)
    amplitudes *= np.sqrt(small.counts.sum() / (amplitudes**2).sum())
    return np.abs(amplitudes - measured).sum() / measured.sum()


def test_the_reconstruction_is_the_object(small, tmp_path):
    imported = import_scan(write_npz(tmp_path / "scan.npz", small.tike), ImportOptions(sweeps=60))
    seen = slice(SIDE // 2, small.corners.max().astype(int) + SIDE // 2)
    ours, true = imported.scan.object[seen, seen], small.object[seen, seen]
    height = min(ours.shape[0], true.shape[0])
    ours, true = ours[:height, :height], true[:height, :height]
    error = float(imported.scan.sources["object"].rpartition(" ")[2])
    assert error < 1.02 * error_of_the_truth(small)
    correlation = abs((ours * true.conj()).sum()) / np.sqrt((abs(ours) ** 2).sum() * (abs(true) ** 2).sum())
    assert correlation > 0.95


@pytest.mark.parametrize("scale", [2.0**-30, 2.0**30])
def test_the_scale_of_the_probe_has_no_effect(small, tmp_path, scale):
    as_given, scaled = (
        import_scan(write_npz(tmp_path / "scan.npz", small.tike | {"probe": small.probe * np.float32(by)}), ONE_SWEEP)
        for by in (1, scale)
    )
    assert scaled.lines[-1] == as_given.lines[-1]
    np.testing.assert_array_equal(scaled.scan.object, as_given.scan.object)
    np.testing.assert_array_equal(scaled.scan.probe, as_given.scan.probe * np.float32(scale))


def test_dead_hot_and_missing_values_are_masked_and_counted(small, tmp_path):
    data = np.fft.ifftshift(small.counts, axes=(1, 2)).astype(np.float32)
    data[:, 2, 3] = 0  # beside the zero frequency at the corner, where there is light
    data[:, 8, 8] = 5000
    data[7, 0, 5] = np.nan
    data[:, 9, 9] = -2
    data[5, 9, 3] = -1
    data[11] = 0
    data[12] = np.nan
    imported = import_scan(write_npz(tmp_path / "scan.npz", small.tike | {"data": data}), ONE_SWEEP)
    scan = imported.scan
    assert np.argwhere(~np.fft.ifftshift(scan.mask)).tolist() == [[0, 5], [2, 3], [8, 8], [9, 9]]
    assert len(scan.diffraction) == len(scan.positions) == len(small.counts) - 2
    assert np.isfinite(scan.diffraction).all()
    assert scan.diffraction[:, ~scan.mask].max() == 0
    assert any(line.startswith("set 1 negative values to 0") for line in imported.lines)
    assert scan.diffraction.min() == 0
    (line,) = [line for line in imported.lines if "masked" in line]
    assert "2 no number, saturated or always negative, 1 dead, 1 hot; empty patterns, left out: 2" in line


@pytest.mark.parametrize("dtype", ["u4", "i8", "f4", "f8"])
@pytest.mark.parametrize("largest", [2**16 - 1, 2**32 - 1])
def test_gaps_are_masked_in_every_type_of_number(small, tmp_path, dtype, largest):
    data = np.fft.ifftshift(small.counts, axes=(1, 2)).astype(dtype)
    data[:, :, 3:5] = largest
    scan = import_scan(write_npz(tmp_path / "scan.npz", small.tike | {"data": data}), ONE_SWEEP).scan
    assert np.unique(np.argwhere(~np.fft.ifftshift(scan.mask))[:, 1]).tolist() == [3, 4]
    assert scan.mask.sum() == SIDE * (SIDE - 2)


def test_a_beam_off_the_centre_is_reported(small, tmp_path):
    def lines(shift):
        data = np.fft.ifftshift(np.roll(small.counts, shift, axis=(1, 2)), axes=(1, 2))
        imported = import_scan(npz(small, tmp_path, data=data), replace(ONE_SWEEP, sweeps=0))
        return [line for line in imported.lines if "centre of mass" in line]

    assert lines((0, 0)) == []
    (line,) = lines((3, -2))
    assert "lies +2.4 rows and -1.8 columns off the zero frequency: cut the patterns around the beam" in line


@pytest.mark.parametrize("background", [0, 0.02])
def test_a_pattern_that_was_taken_in_the_dark_is_left_out(small, tmp_path, background):
    dark = np.random.default_rng(0).poisson(background, (1, SIDE, SIDE))
    data = np.fft.ifftshift(np.concatenate([dark, small.counts]), axes=(1, 2))
    path = npz(small, tmp_path, data=data, scan=np.concatenate([small.corners[:1], small.corners]))
    scan = import_scan(path, ImportOptions(sweeps=1)).scan  # in the dark, ePIE loses the probe, and every orientation
    np.testing.assert_array_equal(scan.diffraction, small.counts)
    np.testing.assert_allclose(scan.positions, relative(small.corners), atol=1e-4)


@pytest.mark.parametrize("kind", ["counts", "intensity"])
def test_gaps_of_zeros_between_modules_are_masked(small, tmp_path, kind):
    data = small.counts * (1 if kind == "counts" else 0.3)
    data[:, 10:13] = data[:, :, 4:6] = 0
    data[:, :, -1] = 0  # at the rim there may be no light
    path = npz(small, tmp_path, data=np.fft.ifftshift(data, axes=(1, 2)))
    masked = ~import_scan(path, replace(ONE_SWEEP, sweeps=0)).scan.mask
    assert np.flatnonzero(masked.all(axis=1)).tolist() == [10, 11, 12]
    assert np.flatnonzero(masked.all(axis=0)).tolist() == [4, 5]
    assert masked.sum() == 5 * SIDE - 6


def test_a_gap_that_does_not_cross_the_frame_is_masked(small, tmp_path):
    data = small.counts.copy()
    data[:, 5:7, 4:12] = data[:, 4:12, 9:11] = 0
    path = npz(small, tmp_path, data=np.fft.ifftshift(data, axes=(1, 2)))
    masked = ~import_scan(path, replace(ONE_SWEEP, sweeps=0)).scan.mask
    np.testing.assert_array_equal(masked, (data == 0).all(axis=0))


@pytest.mark.parametrize("kind", ["counts", "amplitude"])
def test_an_offset_of_the_detector_is_reported(small, tmp_path, kind):
    def lines(offset):
        data = np.fft.ifftshift(small.counts + offset, axes=(1, 2))
        path = npz(small, tmp_path, data=np.sqrt(data) if kind == "amplitude" else data)
        imported = import_scan(path, replace(ONE_SWEEP, sweeps=0, kind=kind))
        return [line for line in imported.lines if "offset" in line]

    assert lines(0) == []
    (line,) = lines(5)
    assert line.startswith("checked: nearly all pixels have at least 5 ")
    assert "in every pattern, 4% of what was measured" in line


def test_nothing_is_masked_of_a_good_detector(small, tmp_path):
    assert import_scan(write_npz(tmp_path / "scan.npz", small.tike), ONE_SWEEP).scan.mask.all()


def test_cropping_keeps_what_the_probe_illuminates(small, tmp_path):
    path = write_cxi(tmp_path / "scan.cxi", small)
    scan = import_scan(path, replace(ONE_SWEEP, crop=8, keep_probe=True)).scan
    np.testing.assert_array_equal(scan.diffraction, small.counts[:, 4:12, 4:12])
    np.testing.assert_allclose(scan.positions, relative(small.corners) / 2)
    assert scan.pixel_size == pytest.approx(2 * PIXEL)
    far = np.fft.fftshift(np.fft.fft2(small.probe))[4:12, 4:12]
    np.testing.assert_allclose(np.fft.fftshift(np.fft.fft2(scan.probe)), far / 4, atol=1e-5)


def test_positions_in_metres_are_in_pixels_of_a_probe_that_is_cropped_already(small, tmp_path):
    path = write_cxi(tmp_path / "scan.cxi", small, probe=crop_probe(small.probe, 8))
    scan = import_scan(path, replace(ONE_SWEEP, crop=8)).scan
    np.testing.assert_allclose(scan.positions, relative(small.corners) / 2)
    assert scan.pixel_size == pytest.approx(2 * PIXEL)


def npz(small, tmp_path, leave_out=(), **changed):
    arrays = {name: array for name, array in {**small.tike, **changed}.items() if name not in leave_out}
    return write_npz(tmp_path / "scan.npz", arrays)


def refusal(path, **options):
    with pytest.raises(DataError) as caught:
        import_scan(path, replace(ONE_SWEEP, **options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_missing_or_does_not_fit_is_refused(small, tmp_path):
    assert "--map probe=FILE:NAME" in refusal(npz(small, tmp_path, leave_out=["probe"]))
    rest = {"diffraction": "data", "probe": "probe"}
    alone = npz(small, tmp_path, leave_out=["scan"])
    assert "no known layout, it holds data, probe" in refusal(alone)
    assert "--map positions=NAME" in refusal(alone, mapped=rest, kind="counts")
    fewer = npz(small, tmp_path, scan=small.corners[:-3])
    assert f"{len(small.counts)} patterns but {len(small.counts) - 3} positions" in refusal(fewer)
    assert "has data, probe, scan" in refusal(npz(small, tmp_path), mapped={"mask": "good"})
    assert "all 100 patterns are zero" in refusal(npz(small, tmp_path, data=np.zeros((100, SIDE, SIDE))))
    assert "--kind intensity" in refusal(npz(small, tmp_path, data=small.tike["data"] / 3), kind="counts")


def test_patterns_larger_than_the_probe_name_the_crop(small, tmp_path):
    path = npz(small, tmp_path, probe=small.probe[4:12, 4:12])
    assert "--crop 8" in refusal(path)
    assert import_scan(path, replace(ONE_SWEEP, crop=8)).scan.diffraction.shape[1:] == (8, 8)


def test_the_kind_does_not_follow_from_the_first_patterns_alone(small, tmp_path):
    data = np.concatenate([np.zeros((8000, SIDE, SIDE)), small.tike["data"][0] / 3])
    scan = np.concatenate([np.zeros((8000, 2)), small.corners])
    imported = import_scan(npz(small, tmp_path, data=data, scan=scan), replace(ONE_SWEEP, sweeps=0))
    assert imported.scan.kind == "intensity"
    assert len(imported.scan.diffraction) == len(small.counts)


def test_a_map_has_to_say_kind_and_what_positions_are_of(small, tmp_path):
    arrays = {"a": small.counts, "b": small.probe, "c": small.corners}
    path = write_npz(tmp_path / "own.npz", arrays)
    mapped = {"diffraction": "a", "probe": "b", "positions": "c"}
    assert "give --kind" in refusal(path, mapped=mapped)
    assert "give --positions" in refusal(path, mapped=mapped, kind="counts")


def test_metres_without_a_pixel_size_are_refused(small, tmp_path):
    path = write_cxi(tmp_path / "scan.cxi", small, leave_out=["distance"])
    assert "give --pixel-size" in refusal(path)
    known = import_scan(path, replace(ONE_SWEEP, pixel_size=PIXEL)).scan
    np.testing.assert_allclose(known.positions, relative(small.corners), atol=1e-6)
    assert "with --unit and --pixel-size" in refusal(npz(small, tmp_path, scan=small.corners * 1e-7))


def test_an_object_on_which_positions_do_not_lie_is_left_and_the_orientation_is_checked(small, tmp_path):
    arrays = small.ptychopinn | {"objectGuess": small.object[:-9]}
    imported = import_scan(write_npz(tmp_path / "scan.npz", arrays), ImportOptions(sweeps=1))
    assert any("some positions lie outside it" in line for line in imported.lines)
    assert any("orientation of the positions is +row,+column" in line for line in imported.lines)
    assert imported.scan.sources["object"].startswith("ePIE")


@pytest.mark.parametrize("change", [np.ones_like, np.zeros_like, np.conj, np.transpose])
def test_an_object_that_does_not_explain_the_patterns_is_left(small, tmp_path, change):
    arrays = small.ptychopinn | {"objectGuess": change(small.object)}
    imported = import_scan(write_npz(tmp_path / "scan.npz", arrays), ONE_SWEEP)
    assert any("since it does not explain the patterns" in line for line in imported.lines)
    assert imported.scan.sources["object"].startswith("ePIE")


def test_positions_that_are_swapped_are_found_although_they_lie_on_the_object(small, tmp_path):
    swapped = {"xcoords": small.ptychopinn["ycoords"], "ycoords": small.ptychopinn["xcoords"]}
    imported = import_scan(write_npz(tmp_path / "scan.npz", small.ptychopinn | swapped), ImportOptions(sweeps=1))
    assert any("orientation of the positions is +column,+row" in line for line in imported.lines)


def test_a_probe_of_another_file_is_taken(small, tmp_path):
    path = npz(small, tmp_path, leave_out=["probe"])
    np.savez(tmp_path / "probe.npz", probe=2 * small.probe)
    scan = import_scan(path, replace(ONE_SWEEP, mapped={"probe": f"{tmp_path}/probe.npz:probe"}, keep_probe=True)).scan
    np.testing.assert_array_equal(scan.probe, 2 * small.probe)
    assert scan.sources["probe"].startswith("probe.npz: probe")
    assert "FILE:NAME" in refusal(path, mapped={"probe": f"{tmp_path}/none.npz:probe"})


def test_the_near_field_is_refused(small, tmp_path):
    sizes = dict.fromkeys(("x_pixel_size", "y_pixel_size"), DETECTOR_PIXEL / 100)
    path = write_cxi(tmp_path / "near.cxi", small, **sizes, leave_out=["probe"])
    assert "near field" in refusal(path)
    assert "no probe" in refusal(path, far_field=True)


def test_damaged_and_pickled_files_are_refused(small, tmp_path):
    whole = write_cxi(tmp_path / "scan.cxi", small)
    cut = tmp_path / "cut.cxi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert "truncated" in refusal(cut)
    cut.write_bytes(whole.read_bytes().replace(b"HEAP", b"JUNK"))
    assert "damaged" in refusal(cut)
    pickled = npz(small, tmp_path, probe=np.array([{"a": 1}], dtype=object))
    assert "probe is a pickled object, which is never loaded" in refusal(pickled)
    (tmp_path / "text.npz").write_text("no archive")
    assert "can't be read" in refusal(tmp_path / "text.npz")
    assert "No such file" in refusal(tmp_path / "none.npz")


def test_the_commands_say_what_was_taken_and_draw_a_figure(small, tmp_path):
    path = write_npz(tmp_path / "scan.npz", small.tike)
    out = tmp_path / "scan.h5"
    done = CliRunner().invoke(
        command, ["import", str(path), "--out", str(out), "--sweeps", "2"], catch_exceptions=False
    )
    assert done.exit_code == 0
    for said in ("layout: tike NPZ", "zero frequency is at the corner", "overlap", "assumed: patterns are counts"):
        assert said in done.output
    assert out.with_suffix(".png").stat().st_size > 10_000
    same = CliRunner().invoke(command, ["import", str(path), "--out", str(path)])
    assert "is the file that is read" in str(same.exception)
    shown = CliRunner().invoke(command, ["show", str(out)], catch_exceptions=False)
    assert f"{len(small.counts)} patterns of {SIDE} x {SIDE}, counts" in shown.output


def test_commands_of_a_name_with_spaces_can_be_pasted(small, tmp_path):
    path, out = write_npz(tmp_path / "scan.npz", small.tike), tmp_path / "my scan ü.h5"
    done = CliRunner().invoke(
        command, ["import", str(path), "--out", str(out), "--sweeps", "0"], catch_exceptions=False
    )
    assert f"next: fnostab run stage_a --set 'data.path={out}'" in " ".join(done.output.splitlines())
    assert f"`fnostab data show '{out}'`" in refusal(out)
    with h5py.File(out, "r+") as file:
        del file.attrs["format"]
    with pytest.raises(DataError, match=f"`fnostab data import '{out}' --out"):
        read_scan(out)
