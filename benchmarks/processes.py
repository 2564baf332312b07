"""Trials of the small profile and other commands in processes of their own, each with one thread as in a study."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PREPARE = """
import sys
from pathlib import Path
from fnostab.study.study import load_study
study = load_study("stage_a", "small", {"execution.device": "cpu"})
for trial in study.trials("benchmark", Path(sys.argv[1]), seeds=range(int(sys.argv[2])), arms=["control"]):
    trial.spec.write(Path(sys.argv[1]) / f"trial-{trial.spec.seed}" / "trial.json")
"""


@dataclass(frozen=True)
class Use:
    """Wall and processor time of a command."""

    wall_s: float
    cpu_s: float


def new_trials(folder: Path, seeds: int) -> list[Path]:
    """Write a trial.json of the control for each seed; return their paths."""
    folder.mkdir()
    run("-c", PREPARE, str(folder), str(seeds))
    return sorted(folder.glob("trial-*/trial.json"))


def clear(trial: Path) -> None:
    """Remove everything that an earlier run left beside a trial.json."""
    for path in trial.parent.iterdir():
        if path != trial:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def run(*arguments: str) -> Use:
    """Run Python with one thread per process, as the launcher does for trials."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with tempfile.TemporaryFile("w+") as printed:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, env=environment, stdout=printed, stderr=printed
        )
        _, status, used = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            printed.seek(0)
            raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}: {printed.read()[-2000:]}")
    return Use(wall_s, used.ru_utime + used.ru_stime)
