"""Doctor's findings on disks, file locks, GPUs and a Slurm that are not as they should be."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.fault_places import small_disk
from fnostab.doctor import look, machine, machine_checks

ALL_LOCKS_GRANTED = "int flock(int file, int operation) { return 0; }"


def finding(name, output=Path("outputs")):
    return dict(look(check for check in machine_checks(output) if check.name == name))[name]


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts a program on PATH that does what a shell script says."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def put(name, script):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return put


class TestDisk:
    def test_free_space_is_that_of_the_folder_that_is_to_be_made(self, tmp_path):
        found = finding("disk", tmp_path / "not" / "yet")
        assert str(tmp_path) in found.text

    def test_a_full_disk(self, tmp_path):
        with small_disk(tmp_path / "disk") as mounted:
            if not mounted:
                pytest.skip("only root can mount a small disk")
            found = finding("disk", tmp_path / "disk" / "outputs")
        assert found.state == "failed"
        assert "0.0 GB free" in found.text
        assert "free some space" in found.text

    def test_one_that_is_nearly_full_is_pruned(self, tmp_path, monkeypatch):
        monkeypatch.setattr(machine, "NEARLY_FULL_BYTES", 10**18)
        assert "`fnostab prune --older-than 90d --output" in finding("disk", tmp_path).text


class TestLocks:
    def test_they_work_here(self, tmp_path):
        assert finding("file locks", tmp_path).state == "ok"
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_takes_no_file(self):
        found = finding("file locks", Path("/proc/outputs"))
        assert found.state == "failed"
        assert "can't lock a file in /proc" in found.text

    @pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
    def test_locks_that_keep_nobody_out(self, tmp_path, monkeypatch):
        (tmp_path / "granted.c").write_text(ALL_LOCKS_GRANTED)
        command = ["cc", "-shared", "-fPIC", "-o", "granted.so", "granted.c"]
        subprocess.run(command, cwd=tmp_path, check=True)
        monkeypatch.setenv("LD_PRELOAD", str(tmp_path / "granted.so"))
        found = finding("file locks", tmp_path)
        assert found.state == "failed"
        assert "two processes could write one trial; mount it with locks" in found.text


class TestGpu:
    def test_a_machine_without_one(self):
        import torch

        found = finding("GPU")
        assert found.state == "ok"
        assert found.text.startswith(("none; trials run on", str(torch.cuda.device_count())))

    def test_a_torch_that_is_broken(self, tmp_path, monkeypatch):
        (tmp_path / "torch.py").write_text("raise ImportError('libtorch.so: cannot open shared object file')")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        found = finding("GPU")
        assert found.state == "failed"
        assert "cannot open shared object file; `pip install --force-reinstall torch`" in found.text

    def test_a_torch_without_cuda_beside_a_gpu(self, program, tmp_path, monkeypatch):
        program("nvidia-smi", "echo 'NVIDIA A100-SXM4-40GB, 550.54.15'")
        (tmp_path / "torch.py").write_text(
            "__version__ = '2.13.0+cpu'\nclass version: cuda = None\nclass cuda: device_count = staticmethod(lambda: 0)"
        )
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        found = finding("GPU")
        assert found.state == "warning"
        assert found.text.startswith("found NVIDIA A100-SXM4-40GB, but torch 2.13.0+cpu is a CPU build")

    def test_a_driver_that_hangs(self, program, tmp_path, monkeypatch):
        (tmp_path / "torch.py").write_text("import time\ntime.sleep(60)")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(machine, "IMPORT_S", 0.5)
        found = finding("GPU")
        assert found.state == "failed"
        assert "the driver may hang" in found.text


class TestSlurm:
    def test_a_machine_without_it(self, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        assert finding("Slurm").text == "not found; trials run on this machine"

    def test_a_controller_that_is_away(self, program):
        said = "slurm_load_partitions: Unable to contact slurm controller (connect failure)"
        program("sinfo", f"echo '{said}' >&2; exit 1")
        found = finding("Slurm")
        assert found.state == "warning"
        assert found.text == f"{said}; to use it, ask its administrator whether slurmctld runs"

    def test_a_controller_that_hangs(self, program, monkeypatch):
        monkeypatch.setattr(machine, "QUICK_S", 0.3)
        program("sinfo", "exec sleep 60")
        assert "sinfo does not answer within 0.3 s" in finding("Slurm").text

    def test_accounting_that_is_off(self, program):
        program("sinfo", "echo 'main*'")
        program("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
        found = finding("Slurm")
        assert found.state == "warning"
        assert "(Slurm accounting storage is disabled); ask its administrator for AccountingStorageType" in found.text
