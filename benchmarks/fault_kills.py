"""Send SIGKILL to random processes of a running study at random moments: trials, their forkserver, the launcher."""

import contextlib
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.fault_checks import check_trial, count_running, differences, read_runs
from benchmarks.fault_places import Place
from fnostab.record import names
from fnostab.record.journal import read_journal
from fnostab.record.lines import Event
from fnostab.record.stderr_tail import STDERR_FILE

EXPERIMENT = "kills"
ARMS = {"control": {}, "other": {"training.weight_decay": 0.001}}
PAUSE_S = (1.0, 12.0)  # shortest and longest pause between volleys
TARGETS = {"trials": 8, "forks": 1, "launcher": 1, "both": 1}  # relative frequencies
FORKS, SUPERVISORS, PROGRAMS = "of what forks trials", "of supervisors of programs", "of programs"
MOST_STARTS_AT_THE_END = 5
ATTEMPTS = "1000"  # many, as kills often hit a process before it has made progress
PROGRAM = """
import random, sys, time
from fnostab.recorder import Recorder
rate, seed = float(sys.argv[1]), int(sys.argv[2])
draw = random.Random(seed)
with Recorder() as rec:
    rec.scheduled(400)
    for step in range(400):
        rec.step(step, loss=rate / (step + 1) + draw.random() / 100, grad_norm=draw.random())
        time.sleep(0.02)
"""
STUDY_OF_PROGRAMS = """
name: kills
description: faults
command: python program.py {rate} {seed}
defaults: {rate: 1.0}
control: control
arms: {control: {}, other: {rate: 2.0}}
"""


@dataclass
class KillsReport:
    """Result of a study whose processes were killed at random moments."""

    kills: Counter[str] = field(default_factory=Counter)  # by activity of the killed process
    starts: int = 0
    seconds: float = 0.0
    trials: int = 0
    attempts: int = 0
    resumed: int = 0
    recorded: int = 0
    stored: int = 0
    doubled: int = 0
    running: int = 0
    compared: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every trial is stored exactly once, complete, with an outcome, and nothing is RUNNING."""
        return not self.problems and not self.running and self.recorded == self.stored

    def rows(self) -> list[tuple[str, str]]:
        """Rows of the result table: (quantity, value)."""
        by_what = ", ".join(f"{count} {what}" for what, count in sorted(self.kills.items()))
        return [
            ("kills", f"{self.kills.total()} ({by_what})"),
            ("time", f"{self.seconds:.0f} s, {self.starts} starts of `fnostab run`"),
            ("trials", f"{self.trials}, each once with its outcome; {self.attempts} attempts, {self.resumed} resumed"),
            ("points found/recorded", f"{self.stored}/{self.recorded}"),
            ("points doubled", str(self.doubled)),
            ("RUNNING left after `fnostab reconcile`", str(self.running)),
            ("curves equal to uninterrupted twins", f"{self.compared - self._differing} of {self.compared} compared"),
            ("result", "OK" if self.ok else "; ".join(self.problems)),
        ]

    @property
    def _differing(self) -> int:
        return sum("curve" in problem for problem in self.problems)


class Shootout:
    """Study that continues whenever its launcher is restarted."""

    def __init__(self, folder: Path, seeds: int, jobs: int, epochs: int, *, programs: bool) -> None:
        self.place = Place(folder)
        self.seeds, self.jobs, self.epochs, self.programs = seeds, jobs, epochs, programs
        self.study = self.write_study(self.place)
        self.launcher: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def write_study(self, place: Place) -> Path:
        """Write the study file, also for the undisturbed twin."""
        if not self.programs:
            return place.write_study(EXPERIMENT, ARMS, **{"training.epochs": self.epochs})
        (place.folder / "program.py").write_text(PROGRAM)
        path = place.folder / "kills.yaml"
        path.write_text(STUDY_OF_PROGRAMS)
        return path

    def command(self) -> list[str]:
        """Arguments of the launcher."""
        profile = [] if self.programs else ["--profile", "small"]
        seeds = ["--seeds", str(self.seeds), "--jobs", str(self.jobs), *profile]
        return ["run", str(self.study), *seeds, "--attempts", ATTEMPTS]

    def keep_running(self) -> None:
        """Restart the launcher if it has ended, with more seeds if the study was finished."""
        if self.launcher is not None and self.launcher.poll() is None:
            return
        if self.launcher is not None and self.launcher.returncode == 0:
            self.seeds += self.jobs // len(ARMS) or 1
        self.launcher = self.place.start(*self.command())
        self.starts += 1

    def victims(self) -> list[tuple[psutil.Process, str]]:
        """Processes of trials, their forkserver or supervisors, each with a description, whoever started them."""
        found: list[tuple[psutil.Process, str]] = []
        for process in psutil.process_iter(["cmdline"]):
            if "train" in (process.info["cmdline"] or []):
                with contextlib.suppress(psutil.Error):
                    logs = [Path(file.path) for file in process.open_files() if Path(file.path).name == STDERR_FILE]
                    if not logs or self.place.output not in logs[0].parents:
                        continue
                    if self.programs:
                        found += [(process, SUPERVISORS), *((each, PROGRAMS) for each in process.children())]
                    else:
                        doing = f"of trials that were {_doing(logs[0].parent, process.pid)}"
                        found.append((process, FORKS if _forks(process) else doing))
        return found

    def finish(self) -> int:
        """Run the study to its end; return the launcher's last exit status."""
        status = None
        for _ in range(MOST_STARTS_AT_THE_END):
            if self.launcher is None or self.launcher.poll() is not None:
                self.launcher = self.place.start(*self.command())
                self.starts += 1
            status = self.launcher.wait()
            if status == 0:
                break
        return -1 if status is None else status


def kill_at_random(
    folder: Path,
    n_kills: int,
    seed: int,
    *,
    seeds: int = 6,
    jobs: int = 4,
    epochs: int = 20,
    pause_s: tuple[float, float] = PAUSE_S,
    twins: int = 5,
    programs: bool = False,
) -> KillsReport:
    """Kill processes of a study at random moments, finish the study, and compare the store with the journals.

    Args:
        folder: working directory.
        n_kills: total number of kills.
        seed: seed of the moments and victims.
        seeds: initial number of seeds of the study; increased if it finishes too early.
        jobs: concurrent trials.
        epochs: epochs of a trial.
        pause_s: shortest and longest pause between volleys.
        twins: number of seeds that are run again without kills, to compare their curves.
        programs: whether trials are programs with supervisors, not trainings of the built-in task.
    """
    rng, report, started = random.Random(seed), KillsReport(), time.monotonic()
    shootout = Shootout(folder / "killed", seeds, jobs, epochs, programs=programs)
    while report.kills.total() < n_kills:
        shootout.keep_running()
        time.sleep(rng.uniform(*pause_s))
        _volley(shootout, rng, report, n_kills - report.kills.total())
    if status := shootout.finish():
        report.problems.append(f"the study ends with {status}")
    shootout.place.call("reconcile")
    report.seconds, report.starts = time.monotonic() - started, shootout.starts
    _check(shootout, report)
    _compare(folder, shootout, report, min(twins, shootout.seeds))
    return report


def _volley(shootout: Shootout, rng: random.Random, report: KillsReport, most: int) -> None:
    """Kill some trials, their forkserver, the launcher, or the launcher and all trials."""
    target = rng.choices(list(TARGETS), list(TARGETS.values()))[0]
    victims = shootout.victims()
    if target == "trials":
        while not (victims := [victim for victim in victims if victim[1] != FORKS]):  # none has started yet
            shootout.keep_running()
            time.sleep(0.5)
            victims = shootout.victims()
        victims = rng.sample(victims, rng.randint(1, len(victims)))
    elif target != "both":
        victims = [victim for victim in victims if target == "forks" and victim[1] == FORKS]
    if target in ("launcher", "both") and shootout.launcher is not None and shootout.launcher.poll() is None:
        shootout.launcher.kill()
        shootout.launcher.wait()
        report.kills["of the launcher"] += 1
        most -= 1
    for process, what in victims[:most]:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
        report.kills[what] += 1
    print(f"{report.kills.total()} kills, {time.strftime('%H:%M:%S')}: {dict(report.kills)}", flush=True)


def _forks(process: psutil.Process) -> bool:
    """Whether a process is the forkserver of trials, whose stdin is a socket from the launcher."""
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{process.pid}/fd/0").startswith("socket:")
    return False


def _doing(directory: Path, pid: int) -> str:
    """Phase of a trial's process according to its journal."""
    journal, doing, mine = directory / "journal.jsonl", "starting", False
    if not journal.exists():
        return doing
    for record, _ in read_journal(journal):
        if not isinstance(record, Event):
            continue
        if record.name == names.TAGS_EVENT and names.OWNER in record.payload:
            mine, doing = record.payload[names.OWNER].startswith(f"{pid}@"), "starting"
        elif record.name == names.STARTED_EVENT and mine:
            doing = "training"
        elif record.name == names.ARTIFACT_EVENT and doing == "training":
            doing = "ending"
        elif record.name == names.OUTCOME_EVENT:
            doing = "starting"
    return doing


def _check(shootout: Shootout, report: KillsReport) -> None:
    """Check that every trial is stored exactly once and agrees with its journal."""
    runs = read_runs(shootout.place.database, EXPERIMENT)
    wanted = {f"{arm}-{seed}" for arm in ARMS for seed in range(shootout.seeds)}
    counts = Counter(run.trial for run in runs if run.tags.get(names.KIND) == names.KIND_TRIAL)
    if wanted != set(counts) or max(counts.values()) > 1:
        report.problems.append(f"{len(wanted)} trials are wanted, found are {dict(counts)}")
    report.trials, report.running = len(counts), count_running(runs)
    for directory in _directories(shootout.place):
        found = check_trial(directory, runs)
        report.recorded += found.recorded
        report.stored += found.stored
        report.doubled += found.doubled
        report.problems += [f"{directory.name}: {problem}" for problem in found.problems]
        events = Counter(r.name for r, _ in read_journal(directory / "journal.jsonl") if isinstance(r, Event))
        report.attempts += events[names.PARAMS_EVENT]
        report.resumed += events[names.RESUMED_EVENT]


def _compare(folder: Path, shootout: Shootout, report: KillsReport, seeds: int) -> None:
    """Run some of the trials again without kills, and compare the curves."""
    whole = Shootout(folder / "whole", seeds, 2, shootout.epochs, programs=shootout.programs)
    whole.place.call(*whole.command())
    killed = {path.name: path for path in _directories(shootout.place)}
    for directory in _directories(whole.place):
        curves = [check_trial(path, []).curve for path in (killed[directory.name], directory)]
        report.compared += 1
        if metrics := differences(*curves):
            report.problems.append(f"{directory.name}: curve differs in {len(metrics)} metrics, as {metrics[0]}")


def _directories(place: Place) -> Sequence[Path]:
    return sorted(path.parent for path in place.output.glob("*/*/*/journal.jsonl"))
