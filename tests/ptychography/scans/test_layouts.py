"""Files as other programs lay them out, read by --map, and what a reader has to refuse."""

import gzip

import numpy as np
import pytest
from click.testing import CliRunner
from small_scan import DETECTOR_PIXEL, DISTANCE, PIXEL, WAVELENGTH, write_cxi, write_npz

from fnostab.errors import DataError
from fnostab.ptychography.cli.data import command
from fnostab.ptychography.scans.importing import ImportOptions, import_scan

h5py = pytest.importorskip("h5py")
MAPPED = {"diffraction": "d", "probe": "p", "positions": "x"}


def read(path, mapped=MAPPED, **options):
    given = {"kind": "counts", "of": "corner", "sweeps": 1, "orientation": "+row,+column", "keep_probe": True}
    imported = import_scan(path, ImportOptions(mapped=mapped, **given | options))
    return imported.scan, imported.lines


def refusal(path, mapped=MAPPED, **options):
    with pytest.raises(DataError) as caught:
        read(path, mapped, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_is(scan, small):
    np.testing.assert_array_equal(scan.diffraction, small.counts)
    np.testing.assert_allclose(scan.positions, small.corners - small.corners.min(axis=0), atol=1e-4)
    np.testing.assert_allclose(scan.probe, small.probe, atol=1e-6)


def npz(small, tmp_path, **changed):
    arrays = {"d": small.counts, "p": small.probe, "x": small.corners} | changed
    return write_npz(tmp_path / "own.npz", arrays)


def write_mat(path, arrays):
    """As MATLAB's -v7.3 does: axes in reverse, complex numbers as a compound, 512 bytes before HDF5's own."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            stored = array.T
            if np.iscomplexobj(array):
                stored = np.empty(array.T.shape, [("real", "f4"), ("imag", "f4")])
                stored["real"], stored["imag"] = array.T.real, array.T.imag
            file[name] = stored
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")
    return path


def test_ptypy_keeps_patterns_in_chunks_and_the_probe_in_its_reconstruction(small, tmp_path):
    with h5py.File(tmp_path / "scan.ptyd", "w") as file:
        for chunk in range(12):  # more than ten: 10 comes after 9
            part = slice(9 * chunk, 9 * chunk + 9)
            file[f"chunks/{chunk}/data"] = small.counts[part].astype(np.int32)
            file[f"chunks/{chunk}/positions"] = small.corners[part] * PIXEL
            file[f"chunks/{chunk}/weights"] = np.ones_like(small.counts[part], dtype=float)
        file["chunks/3/weights"][2, 5, 6] = 0
        file["meta/energy"], file["meta/distance"], file["meta/psize"] = 6.2, DISTANCE, DETECTOR_PIXEL
    with h5py.File(tmp_path / "scan.ptyr", "w") as file:
        file["content/probe/SscanG00/data"] = small.probe[None]
    mapped = {
        "diffraction": "chunks/*/data",
        "positions": "chunks/*/positions",
        "mask": "chunks/*/weights",
        "probe": f"{tmp_path}/scan.ptyr:content/probe/*/data",
    }
    scan, lines = read(tmp_path / "scan.ptyd", mapped, unit="metre", pixel_size=PIXEL)
    assert np.argwhere(~scan.mask).tolist() == [[5, 6]]
    np.testing.assert_array_equal(scan.diffraction, np.where(scan.mask, small.counts, 0))
    np.testing.assert_allclose(scan.positions, small.corners - small.corners.min(axis=0), atol=1e-6)
    assert scan.sources["probe"] == "scan.ptyr: content/probe/*/data"
    assert lines[-1] == "left: meta/distance, meta/energy, meta/psize"


def test_ptychoshelves_keeps_each_array_in_a_file_with_the_axes_of_matlab(small, tmp_path):
    with h5py.File(tmp_path / "dp.hdf5", "w") as file:
        file["dp"] = small.counts.transpose(0, 2, 1)  # (n, x, y)
    with h5py.File(tmp_path / "para.hdf5", "w") as file:
        file["ppX"], file["ppY"] = (small.corners[None, :, axis] * PIXEL * 1e10 for axis in (1, 0))
    modes = np.stack([small.probe, 0.1 * small.probe], axis=-1)
    write_mat(tmp_path / "probe.mat", {"probe": modes})
    mapped = {"diffraction": "dp", "probe": f"{tmp_path}/probe.mat:probe"}
    mapped |= {"rows": f"{tmp_path}/para.hdf5:ppX", "columns": f"{tmp_path}/para.hdf5:ppY"}
    scan, lines = read(tmp_path / "dp.hdf5", mapped, unit="angstrom", pixel_size=PIXEL)
    np.testing.assert_array_equal(scan.diffraction, small.counts.transpose(0, 2, 1))
    np.testing.assert_allclose(scan.positions[:, ::-1], small.corners - small.corners.min(axis=0), atol=1e-4)
    np.testing.assert_allclose(scan.probe, small.probe.T, atol=1e-6)
    assert any(line.startswith("took the first of 2 modes of the probe, 99.0%") for line in lines)
    (tmp_path / "old.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM")
    assert "save it again with -v7.3" in refusal(tmp_path / "old.mat")


def test_a_mat_file_with_everything_in_it(small, tmp_path):
    arrays = {"d": np.moveaxis(small.counts, 0, -1), "p": small.probe, "x": small.corners}
    scan, lines = read(write_mat(tmp_path / "all.mat", arrays), orientation="+column,+row")
    np.testing.assert_array_equal(scan.diffraction, small.counts.transpose(0, 2, 1))
    assert "assumed: positions are (2, n)" in lines


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: {"d": np.moveaxis(s.counts, 0, -1)}, "diffraction is (M, M, n)"),
        (lambda s: {"d": s.counts.reshape(10, 10, 16, 16), "x": s.corners.reshape(10, 10, 2)}, "order of positions"),
        (lambda s: {"d": np.fft.ifftshift(s.counts, axes=(1, 2))}, "the zero frequency is at the corner"),
        (lambda s: {"x": s.corners.T}, "positions are (2, n)"),
        (lambda s: {"x": np.c_[s.corners, np.full(100, 3.0)]}, "coordinate 3 of 3"),
        (lambda s: {"x": np.c_[np.linspace(0, 0.1, 100), s.corners]}, "coordinate 1 of 3"),
        (lambda s: {"d": s.counts[..., None], "p": s.probe[..., None]}, "took probe"),
        (lambda s: {"p": np.stack([s.probe.real, s.probe.imag])}, "along its first axis"),
        (lambda s: {"p": np.stack([s.probe.real, s.probe.imag], -1)}, "along its last axis"),
        (lambda s: {"p": np.fft.ifftshift(s.probe)}, "the probe has its centre at the corner"),
        (lambda s: {"p": compound(s.probe)}, "took probe"),
    ],
)
def test_the_same_scan_however_its_axes_are_stored(small, tmp_path, change, said):
    scan, lines = read(npz(small, tmp_path, **change(small)))
    assert_is(scan, small)
    assert any(said in line for line in lines)


def compound(probe):
    stored = np.empty(probe.shape, [("r", "f4"), ("i", "f4")])
    stored["r"], stored["i"] = probe.real, probe.imag
    return stored


def test_positions_in_other_units_need_the_size_of_a_pixel(small, tmp_path):
    path = npz(small, tmp_path, x=small.corners * PIXEL * 1e9)
    scan, _ = read(path, unit="nanometre", pixel_size=PIXEL)
    assert_is(scan, small)
    assert "give --pixel-size" in refusal(path, unit="nanometre")
    assert "less than one" in refusal(npz(small, tmp_path, x=small.corners * PIXEL))
    assert "span 0 pixels" in refusal(npz(small, tmp_path, x=np.ones((100, 2))), unit="metre", pixel_size=PIXEL)


def test_a_raster_of_nxcxi_ptycho(small, tmp_path):
    xyz = np.c_[small.corners[:, ::-1], np.zeros(100)].reshape(10, 10, 3) * PIXEL
    path = write_cxi(tmp_path / "raster.cxi", small, data=small.counts.reshape(10, 10, 16, 16), translation=xyz)
    scan, _ = read(path, {})
    assert_is(scan, small)


DETECTOR, SOURCE = "entry_1/instrument_1/detector_1/", "entry_1/instrument_1/source_1/"
TRANSLATION = "entry_1/sample_1/geometry_1/translation"


def with_value(path, place, value, unit=None):
    with h5py.File(path, "r+") as file:
        del file[place]
        file[place] = value
        if unit:
            file[place].attrs["units"] = unit
    return path


def test_lengths_and_energies_of_cxi_are_in_the_units_that_the_file_names(small, tmp_path):
    kiloelectronvolts = 1.98644586e-25 / WAVELENGTH / 1.602176634e-16
    micrometres = small.corners[:, ::-1] * PIXEL * 1e6
    for place, value, unit in (
        (SOURCE + "energy", kiloelectronvolts, "keV"),
        (SOURCE + "energy", kiloelectronvolts * 1e3, np.bytes_(b"eV")),
        (SOURCE + "energy", kiloelectronvolts, "keV "),
        (DETECTOR + "distance", DISTANCE * 1e3, "mm"),
        (DETECTOR + "distance", DISTANCE * 1e3, "Millimeters"),
        (DETECTOR + "x_pixel_size", DETECTOR_PIXEL * 1e6, "um"),
        (TRANSLATION, micrometres, "\u00b5m"),
        (TRANSLATION, micrometres, "microns"),
        (TRANSLATION, micrometres / 1e3, "mm"),
        (TRANSLATION, micrometres.T / 1e6, "m"),
    ):
        path = with_value(write_cxi(tmp_path / "scan.cxi", small), place, value, unit)
        scan, _ = read(path, {}, of=None, kind=None)
        assert_is(scan, small)
        assert scan.pixel_size == pytest.approx(PIXEL)


@pytest.mark.parametrize(
    ("place", "unit", "said"),
    [
        (DETECTOR + "distance", "cm", "distance is in 'cm', expected m, mm, um, nm or angstrom): give --pixel-size"),
        (DETECTOR + "x_pixel_size", "pixel", "x_pixel_size is in 'pixel', expected m"),
        (SOURCE + "energy", "MeV", "energy is in 'MeV', expected J, eV or keV): give --pixel-size"),
        (TRANSLATION, "steps", "positions are in 'steps', which is not known: give --unit"),
    ],
)
def test_a_unit_that_is_not_known_is_not_taken_for_metres(small, tmp_path, place, unit, said):
    path = write_cxi(tmp_path / "scan.cxi", small)
    with h5py.File(path, "r+") as file:
        file[place].attrs["units"] = unit
    assert said in refusal(path, {})
    assert_is(read(path, {}, unit="metre", pixel_size=PIXEL)[0], small)


def test_mapped_positions_are_in_the_unit_of_their_attribute(small, tmp_path):
    with h5py.File(tmp_path / "own.h5", "w") as file:
        file["d"], file["p"], file["x"] = small.counts, small.probe, small.corners * PIXEL * 1e6
        file["x"].attrs["units"] = "um"
        file["y"], file["z"] = file["x"][:, 0], file["x"][:, 1]
        file["y"].attrs["units"] = file["z"].attrs["units"] = "um"
    two = {"diffraction": "d", "probe": "p", "rows": "y", "columns": f"{tmp_path}/own.h5:z"}
    for mapped in (MAPPED, two):
        scan, lines = read(tmp_path / "own.h5", mapped, pixel_size=PIXEL)
        assert_is(scan, small)
        assert "assumed: positions are in micrometres, as their attribute units says (--unit)" in lines
    assert "positions are lengths" in refusal(tmp_path / "own.h5")
    scan, _ = read(tmp_path / "own.h5", unit="pixel")
    np.testing.assert_allclose(np.ptp(scan.positions, axis=0), np.ptp(small.corners, axis=0) * PIXEL * 1e6)


@pytest.mark.parametrize("name", ["incident_beam_energy", "incident_energy", "energy"])
def test_the_energy_of_nxcxi_ptycho_is_that_of_its_beam_and_not_of_the_storage_ring(small, tmp_path, name):
    path = with_value(write_cxi(tmp_path / "scan.cxi", small), SOURCE + "energy", 3.0, "GeV")
    assert "energy is in 'GeV'" in refusal(path, {})
    with h5py.File(path, "r+") as file:
        file[f"entry_1/instrument_1/beam_1/{name}"] = 1.98644586e-25 / WAVELENGTH
    assert_is(read(path, {})[0], small)


def test_geometry_that_is_missing_is_named(small, tmp_path):
    for name in ("energy", "distance", "x_pixel_size"):
        path = write_cxi(tmp_path / "scan.cxi", small, leave_out=[name])
        said = refusal(path, {})
        assert f"is not known, since there is no {SOURCE if name == 'energy' else DETECTOR}{name}" in said
        assert said.endswith("give --pixel-size")


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf, np.zeros(0), "8.8 keV", h5py.Empty("f")])
@pytest.mark.parametrize("place", [SOURCE + "energy", DETECTOR + "distance"])
def test_what_is_no_energy_or_distance_is_named_and_the_pixel_size_replaces_it(small, tmp_path, place, value):
    path = with_value(write_cxi(tmp_path / "scan.cxi", small), place, value)
    assert f"since {place} is no number above 0): give --pixel-size" in refusal(path, {})
    assert_is(read(path, {}, pixel_size=PIXEL)[0], small)


def test_detector_pixels_that_are_not_square_are_refused(small, tmp_path):
    path = write_cxi(tmp_path / "scan.cxi", small, y_pixel_size=2 * DETECTOR_PIXEL)
    assert "0.00015 m high and 7.5e-05 m wide, expected square ones" in refusal(path, {})


def test_a_mask_of_the_opposite_meaning_is_refused_and_mapped(small, tmp_path):
    good = np.ones((16, 16), np.uint32)
    good[3, 4] = good[10, 2] = 0
    path = write_cxi(tmp_path / "scan.cxi", small, mask=good)
    assert "the mask leaves 2 of 256 pixels: name it with --map mask=NAME" in refusal(path, {})
    scan, _ = read(path, {"mask": DETECTOR + "mask"})
    np.testing.assert_array_equal(scan.mask, good)
    path = write_cxi(tmp_path / "few.cxi", small, mask=np.pad(np.zeros((4, 4), np.uint32), 6, constant_values=1))
    assert "the mask leaves 16 of 256 pixels" in refusal(path, {})
    assert read(path, {"bad": DETECTOR + "mask"})[0].mask.sum() == 16  # few, and said to be so
    not_numbers = npz(small, tmp_path, m=np.where(good, 1.0, np.nan))
    np.testing.assert_array_equal(read(not_numbers, MAPPED | {"mask": "m"})[0].mask, good)
    raster = npz(small, tmp_path, d=small.counts.reshape(10, 10, 16, 16), m=np.ones((10, 10, 1, 1)) * good)
    np.testing.assert_array_equal(read(raster, MAPPED | {"mask": "m"})[0].mask, good)


def test_a_broken_link_of_a_layout_is_replaced_by_a_map(small, tmp_path):
    path = write_cxi(tmp_path / "scan.cxi", small)
    with h5py.File(path, "r+") as file:
        del file["entry_1/data_1/data"]
        file["entry_1/data_1/data"] = h5py.ExternalLink("lost.h5", "data")
    assert "is a link to lost.h5, which is missing" in refusal(path, {})
    assert_is(read(path, {"diffraction": DETECTOR + "data"})[0], small)


def test_packed_files_are_unpacked_and_damaged_ones_named(small, tmp_path):
    whole = gzip.compress(npz(small, tmp_path).read_bytes())
    (tmp_path / "own.npz.gz").write_bytes(whole)
    assert_is(read(tmp_path / "own.npz.gz")[0], small)
    (tmp_path / "cut.npz.gz").write_bytes(whole[: len(whole) // 2])
    assert "copy it again" in refusal(tmp_path / "cut.npz.gz")
    packed = gzip.compress(write_cxi(tmp_path / "scan.cxi", small).read_bytes())
    (tmp_path / "scan.cxi.gz").write_bytes(packed)
    assert "unpack it with gunzip" in refusal(tmp_path / "scan.cxi.gz", {})


def test_compression_that_hdf5_does_not_know_names_the_plugin(small, tmp_path):
    with h5py.File(tmp_path / "lz4.h5", "w") as file:
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_chunk(small.counts.shape)
        layout.set_filter(299, h5py.h5z.FLAG_OPTIONAL, ())  # of nobody
        space = h5py.h5s.create_simple(small.counts.shape)
        data = h5py.h5d.create(file.id, b"d", h5py.h5t.NATIVE_INT32, space, layout)
        data.write_direct_chunk((0, 0, 0), b"packed", 0)
        file["p"], file["x"] = small.probe, small.corners
    assert "pip install hdf5plugin" in refusal(tmp_path / "lz4.h5")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: {"d": s.counts[:, :, :12]}, "patterns are 16 x 12, expected square ones"),
        (lambda s: {"d": s.counts[:, :15, :15], "p": s.probe[:15, :15]}, "an even side: give --crop 14"),
        (lambda s: {"d": s.counts[:0]}, "diffraction is (0, 16, 16)"),
        (lambda s: {"d": s.counts * 1e40}, "the largest value of a pattern is inf, expected 1e-30 to 1e+30 for counts"),
        (lambda s: {"p": s.probe.astype(complex) * 1e50}, "modulus is at most 1e+50, expected 1e-15 to 1e+15: rescale"),
        (lambda s: {"p": s.probe * 1e-25}, "modulus is at most 1e-25, expected 1e-15 to 1e+15: rescale"),
        (lambda s: {"d": s.counts * 1j}, "expected real (n, M, M)"),
        (lambda s: {"d": -s.counts - 1}, "all 100 patterns are zero"),
        (lambda s: {"x": np.zeros((0, 3))}, "positions are (0, 3)"),
        (lambda s: {"x": np.c_[s.corners, s.corners[:, 0]]}, "positions are (100, 3)"),
        (
            lambda s: {"x": np.where(np.arange(100)[:, None] > 96, np.nan, s.corners)},
            "3 of 100 positions are not finite",
        ),
        (lambda s: {"x": np.array(["a"] * 100)}, "x holds <U1, expected numbers"),
        (lambda s: {"p": np.abs(s.probe)}, "expected a complex one"),
        (lambda s: {"p": 0 * s.probe}, "not zero"),
        (lambda s: {"p": s.probe[:0, :0]}, "probe is (0, 0)"),
        (lambda s: {"m": np.ones((8, 8))}, "mask is (8, 8) float64, expected (16, 16)"),
        (lambda s: {"m": np.zeros((16, 16))}, "the mask leaves no pixel"),
    ],
)
def test_what_can_not_be_a_scan_is_refused_in_a_line(small, tmp_path, change, said):
    arrays = change(small)
    assert said in refusal(npz(small, tmp_path, **arrays), MAPPED | ({"mask": "m"} if "m" in arrays else {}))


def test_a_crop_of_no_pixels_is_refused(small, tmp_path):
    assert "--crop 0: expected an even number from 4 to 16" in refusal(npz(small, tmp_path), crop=0)


@pytest.mark.parametrize("far", [1e4, 1e300])
def test_positions_too_far_apart_name_the_unit(small, tmp_path, far):
    said = "too far for patterns of 16 pixels: give their unit with --unit"
    assert said in refusal(npz(small, tmp_path, x=small.corners * far))
    one = np.where(np.arange(100)[:, None] == 3, far, small.corners)
    assert said in refusal(npz(small, tmp_path, x=one))


def test_an_array_larger_than_the_memory_is_refused(small, tmp_path):
    with h5py.File(tmp_path / "large.h5", "w") as file:
        file.create_dataset("d", (10**9, 1024, 1024), "u2", chunks=(1, 1024, 1024))
        file["p"], file["x"] = small.probe, small.corners
    assert "needs more memory than there is (Unable to allocate" in refusal(tmp_path / "large.h5")


def test_rows_and_columns_of_a_raster(small, tmp_path):
    rows, columns = 4.0 * np.arange(5), 2.0 * np.arange(20)
    mapped = {"diffraction": "d", "probe": "p", "rows": "y", "columns": "x"}
    scan, lines = read(npz(small, tmp_path, y=rows, x=columns), mapped)
    np.testing.assert_array_equal(
        scan.positions, np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    )
    assert "assumed: 5 rows and 20 columns of a raster, one row after the other" in lines
    assert "5 rows and 19 columns of positions" in refusal(npz(small, tmp_path, y=rows, x=columns[:19]), mapped)


def test_the_overlap_is_that_of_patterns_at_different_places(small, tmp_path):
    (once,) = (line for line in read(npz(small, tmp_path))[1] if "overlap" in line)
    twice = npz(small, tmp_path, d=np.repeat(small.counts, 2, axis=0), x=np.repeat(small.corners, 2, axis=0))
    assert once in read(twice)[1]


def test_what_is_left_is_listed_in_short(small, tmp_path):
    others = {f"other{k}": np.zeros(1) for k in range(100)}
    assert read(npz(small, tmp_path, **others))[1][-1].endswith(" and 88 more")


def test_a_position_in_an_array_of_its_own(small, tmp_path):
    with h5py.File(tmp_path / "own.h5", "w") as file:
        file["d"], file["p"] = small.counts, small.probe
        for k, (row, column) in enumerate(small.corners):
            file[f"points/{k}/row"], file[f"points/{k}/column"] = row, column
    mapped = {"diffraction": "d", "probe": "p", "rows": "points/*/row", "columns": "points/*/column"}
    assert_is(read(tmp_path / "own.h5", mapped)[0], small)


def test_patterns_and_positions_in_an_array_each(small, tmp_path):
    with h5py.File(tmp_path / "own.h5", "w") as file:
        file["p"] = small.probe
        for k, (pattern, corner) in enumerate(zip(small.counts, small.corners, strict=True)):
            file[f"entry/frame_{k}"], file[f"points/{k}/at"] = pattern, corner
        file["entry/dark"] = small.counts[0]
    mapped = {"diffraction": "entry/frame_*", "probe": "p", "positions": "points/*/at"}
    assert_is(read(tmp_path / "own.h5", mapped)[0], small)
    with h5py.File(tmp_path / "own.h5", "r+") as file:
        del file["entry/frame_7"]
        file["entry/frame_7"] = small.counts[7][:, :8]
    assert "arrays of entry/frame_* have 2 different shapes" in refusal(tmp_path / "own.h5", mapped)


def test_names_that_are_not_unicode_are_listed(small, tmp_path):
    with h5py.File(tmp_path / "own.h5", "w") as file:
        file["d"], file["p"], file["x"] = small.counts, small.probe, small.corners
        file[b"caf\xe9"] = 1.0
    scan, lines = read(tmp_path / "own.h5")
    assert_is(scan, small)
    assert lines[-1].startswith("left: caf")
    assert "has caf" in refusal(tmp_path / "own.h5", MAPPED | {"mask": "m"})


def test_sums_of_small_integers_do_not_overflow(small, tmp_path):
    counts = np.minimum(small.counts * 40, 2**16 - 2)
    assert counts.sum(axis=0).max() > 2**16
    narrow, wide = (read(npz(small, tmp_path, d=counts.astype(kind)))[0] for kind in (np.uint16, np.int64))
    np.testing.assert_array_equal(narrow.diffraction, counts)
    np.testing.assert_array_equal(narrow.object, wide.object)
    assert narrow.mask.all()


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("none/scan.h5", "is not a writable folder"),
        ("own.npz", "exists and is not a scan file of fnostab"),
        ("scan.png", "the figure is written there"),
    ],
)
def test_a_place_where_a_scan_can_not_be_written_is_refused_before_the_work(small, tmp_path, out, said):
    npz(small, tmp_path)
    done = CliRunner().invoke(command, ["import", str(tmp_path / "absent.npz"), "--out", str(tmp_path / out)])
    assert said in str(done.exception)
    assert (tmp_path / "own.npz").exists()


def test_a_picture_of_the_name_of_a_new_figure_is_kept(small, tmp_path):
    path, out, picture = npz(small, tmp_path), tmp_path / "scan.h5", tmp_path / "scan.png"
    picture.write_bytes(b"of the sample")
    command_line = [
        "import",
        str(path),
        "--out",
        str(out),
        "--sweeps",
        "0",
        "--kind",
        "counts",
        "--positions",
        "corner",
    ]
    command_line += [word for name, place in MAPPED.items() for word in ("--map", f"{name}={place}")]
    refused = CliRunner().invoke(command, command_line)
    assert f"{picture}, where the figure of {out} is written, exists: move it" in str(refused.exception)
    assert picture.read_bytes() == b"of the sample"
    picture.unlink()
    for _ in range(2):  # the scan file and the figure are replaced together
        CliRunner().invoke(command, command_line, catch_exceptions=False)
    assert picture.stat().st_size > 10_000
    CliRunner().invoke(command, ["show", str(out)], catch_exceptions=False)  # so is the figure alone
    picture.write_bytes(b"of the sample")
    for again in (command_line, ["show", str(out)]):
        refused = CliRunner().invoke(command, again)
        assert f"{picture}, where the figure of {out} is written, exists: move it" in str(refused.exception)
        assert picture.read_bytes() == b"of the sample"


def test_links_and_parts_of_an_array_that_are_in_files_left_behind_are_named(small, tmp_path):
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["d"] = small.counts[:50]
    whole = h5py.VirtualLayout(small.counts.shape, small.counts.dtype)
    for half, name in enumerate(("part.h5", "second.h5")):
        whole[50 * half : 50 * half + 50] = h5py.VirtualSource(name, "d", (50, 16, 16))
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["p"], file["x"] = small.probe, small.corners
        file.create_virtual_dataset("d", whole)
        file["parts/0"], file["parts/1"] = (h5py.ExternalLink(name, "d") for name in ("part.h5", "second.h5"))
        file["circle"], file["nowhere"] = h5py.SoftLink("/circle"), h5py.SoftLink("/none")
    master = tmp_path / "master.h5"
    assert "/d is assembled from other files, of which second.h5 is missing" in refusal(master)
    for place, said in {
        "parts/*": "parts/1 is a link to second.h5",
        "circle": "broken link",
        "nowhere": "broken link",
    }.items():
        assert said in refusal(master, MAPPED | {"diffraction": place})
    with h5py.File(tmp_path / "second.h5", "w") as file:
        file["d"] = small.counts[50:]
    for place in ("d", "parts/*"):
        assert_is(read(master, MAPPED | {"diffraction": place})[0], small)


def test_another_file_may_have_colons_and_one_that_is_not_there_is_named(small, tmp_path):
    path = npz(small, tmp_path)
    other = tmp_path / "at 10:30:00.npz"
    write_npz(other, {"p": small.probe})
    assert_is(read(path, MAPPED | {"probe": f"{other}:p"})[0], small)
    other.unlink()
    assert f"no file {other}, " in refusal(path, MAPPED | {"probe": f"{other}:p"})


def test_what_can_be_read_in_two_ways_is_refused(small, tmp_path):
    modes = np.stack([small.probe, small.probe / 2])
    parts = np.stack([modes.real, modes.imag])
    assert_is(read(npz(small, tmp_path, p=np.moveaxis(parts, 0, -1)))[0], small)
    for either in (parts, parts.swapaxes(0, 1)):
        assert "save it as complex numbers" in refusal(npz(small, tmp_path, p=either))
    assert "expected real (n, 2)" in refusal(npz(small, tmp_path, x=small.corners + 1j))
    twice = CliRunner().invoke(command, ["import", str(npz(small, tmp_path)), "--map", "probe=p", "--map", "probe=q"])
    assert "--map probe is given twice" in str(twice.exception)
