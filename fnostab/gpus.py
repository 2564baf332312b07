"""GPUs that this process may use."""

import os
import shutil
import subprocess
from functools import cache
from itertools import takewhile


@cache
def present_gpus() -> int:
    """Count the NVIDIA GPUs of this machine with nvidia-smi, so that torch need not be imported."""
    if not shutil.which("nvidia-smi"):
        return 0
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    lines = listing.stdout.splitlines() if listing.returncode == 0 else []
    return sum(line.startswith("GPU ") for line in lines)  # a name may contain it too: "... RTX 3080 Laptop GPU"


def visible_gpus() -> list[str]:
    """Names of the GPUs that CUDA_VISIBLE_DEVICES leaves, as given there; without it the numbers of all."""
    present, given = present_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if not present or given is None:
        return [str(number) for number in range(present)]
    return list(takewhile(lambda name: name not in ("", "-1"), map(str.strip, given.split(","))))  # as CUDA reads it


def count_gpus() -> int:
    """Number of GPUs that this process may use."""
    return len(visible_gpus())
