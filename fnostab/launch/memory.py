"""Memory available to trials."""

import math
import subprocess
from pathlib import Path

import psutil

ENDLESS = 2**60  # cgroup v1 reports about this without a limit


def memory_for_trial(jobs: int, gpus: int) -> int | None:
    """Bytes for each of ``jobs`` concurrent trials, on ``gpus`` GPUs or, if 0, on the CPU.

    On GPUs, the total memory of the smallest one in use; None if the driver does not report it.
    """
    if not gpus:
        return available_memory() // jobs
    smallest = gpu_memory(min(jobs, gpus))
    return None if smallest is None else smallest // math.ceil(jobs / gpus)


def gpu_memory(gpus: int) -> int | None:
    """Bytes of the smallest of the first ``gpus`` NVIDIA GPUs; None if the driver does not report it."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    mebibytes = answer.stdout.split("\n")[:gpus] if answer.returncode == 0 else []
    if len(mebibytes) < gpus or not all(line.strip().isdecimal() for line in mebibytes):
        return None
    return min(int(line) for line in mebibytes) * 2**20


def available_memory(root: Path = Path("/")) -> int:
    """Bytes available on this machine within the limits of this process's cgroups.

    ``proc`` and ``sys`` are read below ``root``.
    """
    free = [psutil.virtual_memory().available]
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        groups = []
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            free += _left(root / "sys/fs/cgroup", path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            free += _left(root / "sys/fs/cgroup/memory", path, *files)
    return max(min(free), 0)


def _left(mount: Path, path: str, limit_file: str, used_file: str, cache: str) -> list[int]:
    """Bytes left within the limits of a cgroup and its parents, except groups hidden by a container."""
    group = mount / path.strip("/")
    left = []
    for folder in [group, *group.parents]:
        if mount in (folder, *folder.parents):
            try:
                limit, used = (folder / limit_file).read_text().strip(), int((folder / used_file).read_text())
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):
                continue
            if limit.isdecimal() and int(limit) < ENDLESS:
                left.append(int(limit) - used + int(stat.get(cache, 0)))
    return left
