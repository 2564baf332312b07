"""Memory that there is: of the machine, of control groups of either version, of GPUs."""

import psutil
import pytest

from fnostab import gpus
from fnostab.launch import memory
from fnostab.launch.memory import available_memory, gpu_memory, memory_for_trial


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def group(tmp_path):
    """A function that makes a control group of version 2 under ``tmp_path``."""

    def make(path, limit, used=0, cache=0):
        folder = tmp_path / "sys/fs/cgroup" / path
        write(folder / "memory.max", f"{limit}\n")
        write(folder / "memory.current", f"{used}\n")
        write(folder / "memory.stat", f"anon 5\ninactive_file {cache}\n")

    write(tmp_path / "proc/self/cgroup", "0::/slice/job\n")
    return make


@pytest.fixture
def free(monkeypatch):
    """What the machine has now, while other processes take and free memory."""
    now = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: now)
    return now.available


def test_without_a_limit_it_is_what_the_machine_has(tmp_path, group, free):
    group("slice/job", "max")
    assert available_memory(tmp_path) == free
    assert available_memory(tmp_path / "no_linux") == free


def test_the_tightest_group_counts_and_what_is_only_cached_is_free(tmp_path, group):
    group("slice/job", 80 * 10**6, used=30 * 10**6, cache=10**7)
    assert available_memory(tmp_path) == 60 * 10**6
    group("slice", 50 * 10**6, used=30 * 10**6)
    assert available_memory(tmp_path) == 20 * 10**6
    group("slice", 50 * 10**6, used=60 * 10**6)
    assert available_memory(tmp_path) == 0


def test_a_container_sees_its_group_as_the_root(tmp_path, group):
    group("", 10**7)
    assert available_memory(tmp_path) == 10**7


def test_groups_of_version_1(tmp_path):
    write(tmp_path / "proc/self/cgroup", "5:cpu,cpuacct:/job\n4:memory:/job\n")
    folder = tmp_path / "sys/fs/cgroup/memory"
    for name, limit in (("job", 10**7), ("", 2**63 - 4096)):
        write(folder / name / "memory.limit_in_bytes", str(limit))
        write(folder / name / "memory.usage_in_bytes", "4000000")
        write(folder / name / "memory.stat", "total_inactive_file 1000000")
    assert available_memory(tmp_path) == 7 * 10**6


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """A function that puts an ``nvidia-smi`` with the given answer first on PATH."""

    def install(answer, status=0):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\nprintf '{answer}'\nexit {status}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return install


def test_the_smallest_gpu_in_use_counts_and_trials_share_it(driver):
    driver(r"81920\n24576\n16384\n")
    assert gpu_memory(1) == 81920 * 2**20
    assert memory_for_trial(jobs=2, gpus=3) == 24576 * 2**20
    assert memory_for_trial(jobs=4, gpus=3) == 8192 * 2**20


@pytest.mark.parametrize(("answer", "status"), [("[N/A]", 0), ("", 9), (r"81920\n", 0)])
def test_a_driver_that_does_not_say(driver, answer, status):
    driver(answer, status)
    assert memory_for_trial(jobs=2, gpus=2) is None


def test_a_gpu_is_counted_once_whatever_its_name(driver):
    driver(r"GPU 0: NVIDIA GeForce RTX 3080 Laptop GPU (UUID: GPU-1)\n  MIG 1g.5gb Device 0: (UUID: MIG-1)\n")
    assert gpus.present_gpus.__wrapped__() == 1


def test_no_driver(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_memory(1) is None


def test_on_the_cpu_trials_share_what_there_is(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 400)
    assert memory_for_trial(jobs=4, gpus=0) == 100
