"""Two trees of the source, and how commands and small scripts are run in each of them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psutil
from same_as.arms import Study
from same_as.differences import PLACES

ROOT = Path(__file__).parents[2]
BASELINE = "05b687f059ec724e992ef5257983ff3860b8cfce"
OWN = Path(__file__).parent / "own"  # on the path of each process: sitecustomize, and networks of a user's own
LIMIT_S = 400
OF_OTHERS = ("MLFLOW_", "FNOSTAB_", "SLURM_", "SUBMITIT_", "PYTHON")  # variables that change what is done
T = TypeVar("T")


class NotThereError(Exception):
    """The baseline can't be had, with the reason."""


@dataclass(frozen=True)
class Tree:
    """A tree of the source, and a folder of its own to work in.

    Attributes:
        name: "baseline" or "head".
        path: of the source.
        work: where its commands are run.
    """

    name: str
    path: Path
    work: Path

    @property
    def environment(self) -> dict[str, str]:
        """Of its processes: one thread, no configuration of the user's, this tree before what is installed."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(OF_OTHERS)}
        return clean | {
            "PYTHONPATH": os.pathsep.join([str(self.path), str(OWN), str(self.path / "examples" / "cure_search")]),
            "SAME_AS_TREE": str(self.path),  # for sitecustomize, which sees that this tree wins
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "COLUMNS": "100",
        }

    def python(self, *arguments: str) -> str:
        """Run Python to a good end; return what it printed."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.work,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        said = f"{self.name}: python {' '.join(arguments)[-300:]}\n{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
        assert done.returncode == 0, said
        return done.stdout

    def fnostab(self, *arguments: str | Path) -> str:
        """``fnostab ARGUMENTS`` to a good end; return what it printed."""
        return self.python("-m", "fnostab", *map(str, arguments))

    def script(self, text: str, *objects: str) -> Any:
        """Run a script that prints JSON, with the named objects imported from where they are in this tree."""
        found = f"import importlib\nPLACES = {PLACES!r}\n{FINDER}"
        return json.loads(self.python("-c", f"{found}\n" + "".join(f"{o} = find({o!r})\n" for o in objects) + text))

    def insist(self) -> None:
        """See that it is this tree that runs, and nothing but this tree."""
        origin, strange = self.script(INSIST)
        assert Path(origin) == self.path / "fnostab" / "__init__.py", f"{self.name} would run {origin}"
        assert not strange, f"{self.name} would find its modules in other places too: {strange}"

    def write(self, study: Study) -> Path:
        """Write a study file with this tree's names."""
        path = self.work / f"{study.name}.yaml"
        path.write_text(study.text(renamed=self.name == "head"))
        return path

    def run(self, study: Study, *more: str) -> Path:
        """Run a study; return the folder that it wrote to."""
        output, arguments = self._to_run(study, "runs")
        try:
            self.fnostab(*arguments, *more)
        except AssertionError as error:  # on a slow disk the baseline stops sending before it is done
            if "not wholly sent" not in str(error):
                raise
            self.fnostab("sync", output, "--tracking-uri", self.store_of("runs", study))
        return output

    def store_of(self, folder: str, study: Study) -> str:
        """Address of the database of a study that was run into "runs" or "records"."""
        return f"sqlite:///{self.work}/{folder}-{study.name}.db"

    def records(self, study: Study) -> Path:
        """Start a study for the sake of its records, and kill it once they are there; return its folder."""
        output, arguments = self._to_run(study, "records")
        self.run_until(lambda: len(list((output / study.name).rglob("trial.json"))) == study.count, *arguments)
        return output

    def _to_run(self, study: Study, folder: str) -> tuple[Path, tuple[str | Path, ...]]:
        """Folder of its own, and arguments of ``fnostab`` with which it is run."""
        output = self.work / folder / study.name
        options = ("--seeds", study.seeds, "--profile", "small", "--jobs", "2", "--output", output)
        return output, ("run", self.write(study), *options, "--tracking-uri", self.store_of(folder, study))

    def run_until(self, ready: Callable[[], bool], *arguments: str | Path) -> None:
        """Start ``fnostab ARGUMENTS``, and kill it with all its processes as soon as it is ``ready``."""
        command = [sys.executable, "-m", "fnostab", *map(str, arguments)]
        log = self.work / "killed.log"
        with open(log, "a") as said:
            process = psutil.Popen(command, cwd=self.work, env=self.environment, stdout=said, stderr=said)
        try:
            deadline = time.monotonic() + LIMIT_S
            while not ready():
                assert process.poll() is None or ready(), f"it ended before it was killed\n{log.read_text()[-3000:]}"
                assert time.monotonic() < deadline, f"it did not come far enough\n{log.read_text()[-3000:]}"
                time.sleep(0.005)
        finally:
            _kill_all(process)


INSIST = """
import fnostab, json, sys
editable = [str(finder) for finder in sys.meta_path if "editable" in str(finder)]
print(json.dumps([fnostab.__file__, editable + list(fnostab.__path__)[1:]]))
"""
FINDER = """
def find(name):
    for place in PLACES[name]:
        try:
            return getattr(importlib.import_module(place), name)
        except (ImportError, AttributeError):
            continue
    raise SystemExit(f"{name} is in none of {PLACES[name]}: name its new place in differences.py")

"""


def _kill_all(process: psutil.Popen) -> None:
    """SIGKILL for a launcher, then for what it started: the fork server and the trials."""
    try:
        started = process.children(recursive=True)
        process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        started = []
    for each in started:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait(30)
    psutil.wait_procs(started, 30)


def in_both(trees: tuple[Tree, Tree], do: Callable[[Tree], T]) -> list[T]:
    """What ``do`` gives for each tree, both at the same time."""
    return side_by_side([partial(do, tree) for tree in trees])


def side_by_side(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """What each gives, two at a time: they wait for processes, and the machine has two cores."""
    with ThreadPoolExecutor(2) as pool:
        return [each.result() for each in [pool.submit(job) for job in jobs]]


@contextmanager
def baseline_source(folder: Path) -> Iterator[Path]:
    """The baseline's source as a worktree in ``folder``, which is taken away at the end.

    Raises:
        NotThereError: this is no repository, or one without that commit.
    """
    if _git("cat-file", "-e", f"{BASELINE}^{{commit}}") is None:
        raise NotThereError(f"{ROOT} is no repository that has the baseline {BASELINE[:7]}: clone it with its history")
    path = folder / "baseline_source"
    if _git("worktree", "add", "--detach", "--force", str(path), BASELINE) is None:
        raise NotThereError(f"git can't check the baseline {BASELINE[:7]} out: git worktree add {path}")
    try:
        yield path
    finally:
        _git("worktree", "remove", "--force", str(path))


def _git(*arguments: str) -> str | None:
    """What git printed; None if it failed or is not there."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
