"""Processor time of the parts of one trial of the small profile, trained in a process of its own.

    python -m benchmarks --only trial

One thread, as in a study; `benchmarks/trial_parts.py` trains and takes the times.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.timing import Row, compared

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


def measure(quick: bool) -> list[Row]:
    """Median CPU seconds of each part, relative to the whole."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="trial-") as folder:
        (trial,) = new_trials(Path(folder) / "trials", 1)
        for _ in range(1 if quick else 3):
            clear(trial)
            measured = Path(folder) / "parts.json"
            use = run("-m", "benchmarks.trial_parts", str(trial), str(measured))
            seconds = json.loads(measured.read_text())
            rest = use.cpu_s - sum(seconds.values())
            for part, each in {"all": use.cpu_s, **seconds, "start and end of the process": rest}.items():
                found.setdefault(part, []).append(each)
    return compared("small trial by itself, CPU", {part: median(each) for part, each in found.items()}, "s")


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
