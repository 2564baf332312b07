"""Count the GPUs of this machine."""

import shutil
import subprocess
from functools import cache


@cache
def count_gpus() -> int:
    """Count the NVIDIA GPUs of this machine with nvidia-smi, so that torch need not be imported."""
    if not shutil.which("nvidia-smi"):
        return 0
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return listing.stdout.count("GPU ") if listing.returncode == 0 else 0
