"""Check that this machine can run trials: disk, file locks, GPU, Slurm."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from fnostab.doctor.finding import Check, Finding, State

TOO_FULL_BYTES, NEARLY_FULL_BYTES = 10**9, 10**10
QUICK_S = 15.0
IMPORT_S = 120.0  # to import torch from a disk that many share
IF_DISK_HANGS = "check that its file server runs, or name a folder on another disk with --output"

_TRY_LOCK = "import sys; from filelock import FileLock; FileLock(sys.argv[1]).acquire(timeout=0)"
_TRY_GPU = """
import json, torch
found = {"version": torch.__version__, "cuda": torch.version.cuda, "devices": [], "error": None}
try:
    for index in range(torch.cuda.device_count()):
        torch.ones(8, device=f"cuda:{index}").sum().item()
        found["devices"].append(torch.cuda.get_device_name(index))
    if torch.version.cuda and not found["devices"]:
        torch.cuda.init()
except Exception as error:
    found["error"] = str(error).splitlines()[0]
print(json.dumps(found))
"""


def machine_checks(output: Path) -> Iterator[Check]:
    """Checks of this machine and of ``output``, the folder of journals, which need not exist yet."""
    yield Check("disk", lambda: _disk(output), QUICK_S, IF_DISK_HANGS)
    yield Check("file locks", lambda: _locks(output), 2 * QUICK_S, IF_DISK_HANGS)
    yield Check(
        "GPU", _gpu, IMPORT_S + QUICK_S, "the driver may hang: restart this machine, or set CUDA_VISIBLE_DEVICES="
    )
    yield Check("Slurm", _slurm, 3 * QUICK_S, "ask its administrator whether slurmctld runs")


def _nearest(folder: Path) -> Path:
    """The folder, or its nearest parent that exists."""
    path = folder.absolute()
    return next(each for each in (path, *path.parents) if each.is_dir())


def _disk(output: Path) -> Finding:
    place = _nearest(output)
    if not os.access(place, os.W_OK):
        return Finding(State.FAILED, f"can't write to {place}; name another folder with --output")
    free = shutil.disk_usage(place).free
    text = f"{free / 1e9:.1f} GB free for journals in {place}"
    if free < TOO_FULL_BYTES:
        return Finding(State.FAILED, f"{text}; free some space, or name another disk with --output")
    if free < NEARLY_FULL_BYTES:
        return Finding(
            State.WARNING, f"{text}; `fnostab prune --older-than 90d --output {shlex.quote(str(output))}` makes room"
        )
    return Finding(State.OK, text)


def _locks(output: Path) -> Finding:
    """Check that a file lock keeps out a second process; other machines can't be tested from here."""
    from filelock import FileLock

    place = _nearest(output)
    try:
        with tempfile.TemporaryDirectory(prefix=".fnostab-doctor-", dir=place) as folder:
            path = Path(folder, "try.lock")
            with FileLock(path, timeout=0):
                other = subprocess.run(
                    [sys.executable, "-c", _TRY_LOCK, str(path)], capture_output=True, timeout=QUICK_S, check=False
                )
    except OSError as error:
        why = error.strerror or error
        return Finding(
            State.FAILED, f"can't lock a file in {place}: {why}; name a folder on another disk with --output"
        )
    if other.returncode == 0:
        return Finding(
            State.FAILED,
            f"file locks in {place} have no effect: two processes could write one trial; mount it with locks "
            "(NFS: version 4, without nolock), or name another disk with --output",
        )
    return Finding(State.OK, f"locks work in {place}")


def _gpu() -> Finding:
    driver = _answer("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    tried = subprocess.run(
        [sys.executable, "-c", _TRY_GPU], capture_output=True, text=True, timeout=IMPORT_S, check=False
    )
    if tried.returncode:
        last = (tried.stderr.strip().splitlines() or ["no output"])[-1]
        if last == "ModuleNotFoundError: No module named 'torch'":
            return Finding(State.OK, "not tried: torch is not installed")
        return Finding(State.FAILED, f"torch can't be imported: {last}; `pip install --force-reinstall torch`")
    found = json.loads(tried.stdout)
    if found["devices"]:
        versions = f"CUDA {found['cuda']}, driver {_driver_version(driver)}"
        return Finding(State.OK, f"{len(found['devices'])}: {', '.join(sorted(set(found['devices'])))} ({versions})")
    if found["error"]:
        return Finding(
            State.FAILED, f"torch {found['version']} can't use the GPU: {found['error']}; update the driver, or "
            "install a torch build for this driver",
        )  # fmt: skip
    if driver is not None and driver[0] == 0 and driver[1]:
        name = driver[1].splitlines()[0].split(",")[0]
        return Finding(
            State.WARNING, f"found {name}, but torch {found['version']} is a CPU build; install a CUDA build"
        )
    return Finding(State.OK, f"none; trials run on {os.cpu_count()} cores")


def _driver_version(answer: tuple[int, str] | None) -> str:
    if answer is None or answer[0] or not answer[1]:
        return "(unknown: no nvidia-smi)"
    return answer[1].splitlines()[0].rpartition(",")[2].strip()


def _slurm() -> Finding:
    partitions = _answer("sinfo", "--noheader", "--format=%P")
    if partitions is None:
        return Finding(State.OK, "not found; trials run on this machine")
    if partitions[0]:
        return Finding(State.WARNING, f"{partitions[1]}; to use it, ask its administrator whether slurmctld runs")
    names = ", ".join(partitions[1].split()) or "none"
    jobs = _answer("sacct", "--noheader", "--allocations", "--starttime=now")
    if jobs is None or jobs[0]:
        why = "sacct not found" if jobs is None else jobs[1]
        return Finding(
            State.WARNING, f"partitions {names}, but the end of a job can't be asked for ({why}); "
            "ask its administrator for AccountingStorageType=accounting_storage/slurmdbd",
        )  # fmt: skip
    if find_spec("submitit") is None:
        return Finding(State.WARNING, f"partitions {names}; `pip install 'fnostab[slurm]'` lets studies use them")
    return Finding(State.OK, f"partitions {names}, with accounting")


def _answer(*command: str) -> tuple[int, str] | None:
    """Exit status and output of a program, only its last line if it fails; None if it is not installed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=QUICK_S, check=False)
    except FileNotFoundError:
        return None
    except subprocess.TimeoutExpired:
        return 1, f"{command[0]} does not answer within {QUICK_S:g} s"
    if done.returncode:
        return done.returncode, ((done.stderr or done.stdout).strip().splitlines() or ["no output"])[-1]
    return 0, done.stdout.strip()
