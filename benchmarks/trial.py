"""Time of a trial of the small profile and its parts, and of a shootout, compared with the first version of fnostab.

    python -m benchmarks --only trial

The first version is taken from the git history and trains the same trials, with the same network, data and number of
steps; without the history it is skipped. Trials are run one after another by the launcher, as in a study. CPU seconds
are those of all processes that the launcher started, including the forkserver, divided by the number of trials.
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

from benchmarks.timing import Row, compared, skipped

ROOT = Path(__file__).parent.parent
FIRST_VERSION = "b08cb77339837294b399c947df1bf233c7b55d6d"  # the first that ran from `make run` to a verdict
NOW, FIRST = "this version", "first version"
ARMS = 3
TRIALS = 6  # trials of one study, in sequence
PREPARE = """
import sys
from pathlib import Path
try:
    from fnostab.study.study import load_study
except ImportError:  # the first version
    from fnostab.studies.spec import load_study
study = load_study("stage_a", "small", {"execution.device": "cpu"})
for trial in study.trials("benchmark", Path(sys.argv[1]), seeds=range(int(sys.argv[2])), arms=["control"]):
    spec = getattr(trial, "spec", trial)  # in the first version it is that
    spec.write(Path(sys.argv[1]) / f"trial-{spec.seed}" / "trial.json")
"""
LAUNCH = """
import json, resource, sys, time
from pathlib import Path
try:
    from fnostab.launch.local import LocalLauncher
    from fnostab.record.progress import TrialProgress
    from fnostab.record.trial import TrialSpec
    launcher = LocalLauncher(1, gpu=False)
except ImportError:  # the first version
    from fnostab.studies.local import LocalLauncher
    from fnostab.studies.progress import TrialProgress
    from fnostab.trial import TrialSpec
    launcher = LocalLauncher(1, "cpu")
started = time.perf_counter()
for file in map(Path, sys.argv[2:]):
    trial = TrialProgress(TrialSpec.read(file), file.parent)
    launcher.submit([trial] if hasattr(launcher, "trials_per_job") else trial)
    while not launcher.poll():
        time.sleep(0.05)
    if trial.outcome not in ("converged", "collapsed"):
        sys.exit(f"{file}: {trial.outcome}, {trial.reason}")
del launcher
used = resource.getrusage(resource.RUSAGE_CHILDREN)
Path(sys.argv[1]).write_text(json.dumps([time.perf_counter() - started, used.ru_utime + used.ru_stime]))
"""


@dataclass(frozen=True)
class Use:
    """Wall and processor time of a command."""

    wall_s: float
    cpu_s: float


def measure(quick: bool) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="trial-") as temporary:
        folder = Path(temporary)
        versions = {NOW: ROOT}
        rows = parts(folder / "parts", rounds=1 if quick else 3)
        if first_version(folder / "first"):
            versions[FIRST] = folder / "first"
        else:
            rows.append(skipped(FIRST, f"git's history does not reach back to {FIRST_VERSION[:10]}"))
        rows += trials(folder, versions, rounds=1 if quick else 3)
        rows += shootouts(folder, versions, seeds=1 if quick else 6)
        return rows


def first_version(folder: Path) -> bool:
    """Unpack the first version into ``folder``; return False if the git history does not have it."""
    folder.mkdir()
    archive = subprocess.run(["git", "archive", FIRST_VERSION], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        return False
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return True


def parts(folder: Path, rounds: int) -> list[Row]:
    """Median CPU seconds of each part of a trial in a separate process, relative to the whole."""
    (trial,) = new_trials(folder, ROOT, 1)
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        clear(trial)
        measured = folder / "parts.json"
        use = run(ROOT, "-m", "benchmarks.trial_parts", str(trial), str(measured))
        seconds = json.loads(measured.read_text())
        of_parts = sum(seconds.values())
        for part, each in {"all": use.cpu_s, **seconds, "start and end of the process": use.cpu_s - of_parts}.items():
            found.setdefault(part, []).append(each)
    return compared("small trial by itself, CPU", {part: median(each) for part, each in found.items()}, "s")


def trials(folder: Path, versions: dict[str, Path], rounds: int) -> list[Row]:
    """Run the same trials with the launchers of all versions alternately; the first round creates the data set."""
    made = {version: new_trials(folder / f"trials of {version}", root, TRIALS) for version, root in versions.items()}
    uses: dict[str, list[Use]] = {version: [] for version in versions}
    for number in range(rounds + 1):
        for version, root in versions.items():
            files = made[version] if number else made[version][:1]
            for file in files:
                clear(file)
            measured = folder / "launched.json"
            run(root, "-c", LAUNCH, str(measured), *map(str, files))
            if number:
                wall_s, cpu_s = json.loads(measured.read_text())
                uses[version].append(Use(wall_s / TRIALS, cpu_s / TRIALS))
    return both(f"one of {TRIALS} small trials", uses)


def shootouts(folder: Path, versions: dict[str, Path], seeds: int) -> list[Row]:
    """Run a study of three arms, from the command to the recorded verdict, with one trial per core at a time."""
    command = ["-m", "fnostab", "run", "stage_a", "--profile", "small", "--set", "execution.device=cpu"]
    uses = {}
    for version, root in versions.items():
        place = folder / f"shootout of {version}"
        place.mkdir()
        store = f"sqlite:///{place / 'mlflow.db'}"
        more = ["--seeds", str(seeds), "--output", str(place / "outputs"), "--tracking-uri", store]
        uses[version] = [run(root, *command, *more)]
    return both(f"shootout of {ARMS * seeds} small trials", uses)


def both(what: str, uses: dict[str, list[Use]]) -> list[Row]:
    cpu = {version: median(use.cpu_s for use in found) for version, found in uses.items()}
    wall = {version: median(use.wall_s for use in found) for version, found in uses.items()}
    return [*compared(f"{what}, CPU", cpu, "s"), *compared(f"{what}, wall", wall, "s")]


def new_trials(folder: Path, root: Path, seeds: int) -> list[Path]:
    """Paths of trial.json of the control for each seed, written by the version at ``root``."""
    folder.mkdir()
    run(root, "-c", PREPARE, str(folder), str(seeds))
    return sorted(folder.glob("trial-*/trial.json"))


def clear(trial: Path) -> None:
    """Remove everything that an earlier run left beside a trial.json."""
    for path in trial.parent.iterdir():
        if path != trial:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def run(root: Path, *arguments: str) -> Use:
    """Run Python with the version at ``root`` and one thread per process, as the launcher does for trials."""
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with tempfile.TemporaryFile("w+") as printed:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=root, env=environment, stdout=printed, stderr=printed
        )
        _, status, used = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            printed.seek(0)
            raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}: {printed.read()[-2000:]}")
    return Use(wall_s, used.ru_utime + used.ru_stime)
