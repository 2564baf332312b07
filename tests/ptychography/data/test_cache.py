import errno
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fnostab
from fnostab.errors import DataError
from fnostab.ptychography.data import GridLines, cache, dataset_digest, prepare
from fnostab.ptychography.physics.probe import disk_probe
from fnostab.ptychography.settings import DataConfig, ObjectConfig, ProbeConfig


@pytest.fixture
def folder(config, tmp_path) -> Path:
    prepare(config, 0, tmp_path)
    return tmp_path / dataset_digest(config, 0)


def _tensors(data: GridLines) -> dict[str, torch.Tensor]:
    splits = {name: getattr(data, name) for name in ("train", "validation", "test")}
    return {"probe": data.probe} | {f"{s}.{k}": v for s, split in splits.items() for k, v in vars(split).items()}


def test_what_is_read_is_what_was_simulated(config, data, folder):
    read = prepare(config, 0, folder.parent)
    for name, tensor in _tensors(data).items():
        assert torch.equal(_tensors(read)[name], tensor), name
    numbers = ("photon_scale", "mean_amplitude", "mean_count")
    assert [getattr(read, n) for n in numbers] == [getattr(data, n) for n in numbers]


def test_it_is_made_only_once(config, folder, monkeypatch):
    monkeypatch.setattr(cache, "simulate", lambda *_: pytest.fail("simulated again"))
    prepare(config, 0, folder.parent)


WORKER = """
import sys, time
from pathlib import Path
from fnostab.ptychography.settings import DataConfig
from fnostab.ptychography.data import cache

def announced(*arguments, simulate=cache.simulate):
    print("simulated")
    return simulate(*arguments)

config, root, mine, other = sys.argv[1:]
cache.simulate = announced
Path(mine).touch()
while not Path(other).exists():  # start together
    time.sleep(0.001)
cache.prepare(DataConfig.model_validate_json(config), 0, root)
"""


def test_concurrent_processes_make_it_once(config, tmp_path):
    flags = [str(tmp_path / name) for name in ("one", "two")]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, config.model_dump_json(), str(tmp_path / "data"), *order],
            cwd=Path(fnostab.__file__).parents[1],
            stdout=subprocess.PIPE,
            text=True,
        )
        for order in (flags, flags[::-1])
    ]
    printed = [worker.communicate(timeout=120)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert sorted(printed) == ["", "simulated\n"]


def test_leftovers_of_a_killed_process_are_no_obstacle(config, tmp_path):
    partial = tmp_path / f"{dataset_digest(config, 0)}.partial"
    partial.mkdir()
    (partial / "probe.npy").write_bytes(b"half of")
    prepare(config, 0, tmp_path)
    assert not partial.exists()


def _flip_last_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


DAMAGED = [*itertools.product(["train_amplitudes.npy", "test_objects.npy", "probe.npy"], [_flip_last_byte])]
DAMAGED += itertools.product(["train_amplitudes.npy", "manifest.json"], [_truncate, Path.unlink])


@pytest.mark.parametrize(("name", "damage"), DAMAGED)
def test_damaged_file_is_named_with_the_remedy(config, folder, name, damage):
    damage(folder / name)
    with pytest.raises(DataError) as caught:
        prepare(config, 0, folder.parent)
    message = str(caught.value)
    assert str(folder / name) in message
    assert f"delete {folder}" in message
    assert "\n" not in message
    shutil.rmtree(folder)
    prepare(config, 0, folder.parent)  # the remedy works


def test_manifest_without_a_digest_is_damaged(config, folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]["probe.npy"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"probe\.npy"):
        prepare(config, 0, folder.parent)


def test_full_disk_is_an_error_and_leaves_nothing_half_made(config, tmp_path, monkeypatch):
    save, written = np.save, []

    def full_after_three(path, *arguments, **keywords):
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        save(path, *arguments, **keywords)

    monkeypatch.setattr(np, "save", full_after_three)
    with pytest.raises(DataError, match="No space left on device"):
        prepare(config, 0, tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] in ([], [".lock"])
    monkeypatch.undo()
    prepare(config, 0, tmp_path)


def test_folder_that_cannot_be_made_is_an_error(config, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="another data folder"):
        prepare(config, 0, tmp_path / "file")


@pytest.mark.parametrize(
    "changed",
    [
        {"N": 18},
        {"object_size": 49},
        {"n_lines": 61},
        {"set_phi": False},
        {"nimgs_train": 2},
        {"nimgs_test": 2},
        {"scan_stride_train": 3},
        {"scan_stride_test": 7},
        {"nphotons": 2e6},
        {"phase_only": True},
        {"object": ObjectConfig(kind="dead_leaves")},
        {"probe": ProbeConfig(radius=0.2)},
        {"probe": ProbeConfig(curvature_rad=2.0)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_every_setting_changes_the_digest(config, changed):
    assert dataset_digest(config.model_copy(update=changed), 0) != dataset_digest(config, 0)


def test_every_setting_of_the_data_is_tried_above():
    tried = {"N", "object_size", "n_lines", "set_phi", "nimgs_train", "nimgs_test"}
    tried |= {"scan_stride_train", "scan_stride_test", "nphotons", "probe", "object", "phase_only"}
    assert set(DataConfig.model_fields) - tried == {"seed"}


def test_digest_follows_the_data_seed_and_not_the_one_in_the_config(config):
    assert dataset_digest(config, 1) != dataset_digest(config, 0)
    assert dataset_digest(config.model_copy(update={"seed": 5}), 0) == dataset_digest(config, 0)


def test_measured_probe_counts_by_its_content_wherever_it_lies(config, tmp_path):
    probe = disk_probe(16, 0.3, 1.0).numpy()
    paths = [tmp_path / name for name in ("a.npz", "b.npz", "other.npz")]
    np.savez(paths[0], probe=probe)
    shutil.copy(paths[0], paths[1])
    np.savez(paths[2], probe=2j * probe)
    a, b, other = (config.model_copy(update={"probe": ProbeConfig(path=str(path))}) for path in paths)
    assert dataset_digest(a, 0) == dataset_digest(b, 0)
    assert dataset_digest(a, 0) != dataset_digest(other, 0)
    unused = a.model_copy(update={"probe": a.probe.model_copy(update={"radius": 0.1})})
    assert dataset_digest(unused, 0) == dataset_digest(a, 0)

    torch.testing.assert_close(prepare(a, 0, tmp_path).probe.abs().max(), torch.tensor(1.0))
    paths[0].unlink()
    with pytest.raises(DataError, match=r"a\.npz"):
        dataset_digest(a, 0)


def test_probe_that_is_not_the_one_of_the_study_is_refused(config, tmp_path):
    np.savez(tmp_path / "probe.npz", probe=disk_probe(16, 0.3, 1.0).numpy())
    probe = ProbeConfig(path=str(tmp_path / "probe.npz"), sha256="0" * 64)
    with pytest.raises(DataError, match=r"probe\.npz has sha256"):
        prepare(config.model_copy(update={"probe": probe}), 0, tmp_path)


def test_an_object_of_a_file_counts_by_its_content_wherever_it_lies(config, tmp_path):
    rng = np.random.default_rng(0)
    for name, image in (("a", rng.random((96, 96)) + 0.1), ("c", rng.random((96, 96)) + 0.1)):
        np.savez(tmp_path / f"{name}.npz", object=image)
    shutil.copy(tmp_path / "a.npz", tmp_path / "b.npz")
    of = {n: config.model_copy(update={"object": ObjectConfig(path=str(tmp_path / f"{n}.npz"))}) for n in "abc"}
    digests = {name: dataset_digest(one, 0) for name, one in of.items()}
    assert digests["a"] == digests["b"] != digests["c"]
    data = prepare(of["a"], 0, tmp_path / "data")
    objects = [split.objects[0] for split in (data.train, data.validation, data.test)]
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(objects, 2))
    np.savez(tmp_path / "a.npz", object=np.ones((96, 96)))
    pinned = of["a"].model_copy(update={"object": ObjectConfig(path=str(tmp_path / "a.npz"), sha256="0" * 64)})
    with pytest.raises(DataError, match=r"object file .* expected 0000.* set data.object.sha256"):
        prepare(pinned, 0, tmp_path / "data")
