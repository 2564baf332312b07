"""Record the environment of a trial: code, packages, machine."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import fnostab
from fnostab.record import slurm_jobs as slurm
from fnostab.record.attempt import this_process

PACKAGES = ("torch", "lightning", "numpy", "scipy", "scikit-image", "pydantic")


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Versions, machine and code state as a JSON-serialisable dict."""
    return {
        "fnostab": fnostab.__version__,
        "git": git_state(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
    }


def git_state() -> dict[str, Any]:
    """Commit of the working directory, and whether it has uncommitted changes; both None outside a repository."""
    commit = _git("rev-parse", "HEAD")
    return {"commit": commit, "dirty": None if commit is None else bool(_git("status", "--porcelain"))}


def owner() -> str:
    """``pid@host`` of this process, with its Slurm job if that is requeued when interrupted."""
    process, job = this_process(), slurm.this_job()
    return f"{process} in Slurm job {job}" if job else process


def _git(*arguments: str) -> str | None:
    try:
        answer = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=Path.cwd(), check=False)
    except OSError:
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
