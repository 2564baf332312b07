import json
import logging
import os
import shutil
import sys
import tempfile
import threading
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from slurm_cluster import Slurm, missing

from fnostab.launch import run as run_module
from fnostab.launch import study_upload
from fnostab.launch.local import LocalLauncher
from fnostab.launch.run import run_study
from fnostab.launch.slurm.launcher import SlurmLauncher
from fnostab.record import names
from fnostab.record import slurm_jobs as slurm
from fnostab.study.study import load_study
from fnostab.tasks.registry import load

STUB = Path(__file__).with_name("stub_trial.py")


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Replaces trial processes by ``stub_trial.py``, and says what each attempt at each trial does.

    A function of ``{"control-0": ["exit 3", "converged"], ...}``; a trial that is not named converges.
    """
    monkeypatch.setattr(sys, "executable", _stub_python(tmp_path / "python"))
    for launcher in (LocalLauncher, SlurmLauncher):
        monkeypatch.setattr(launcher, "call", _call_here)
    monkeypatch.setenv("STUB_SCRIPT", str(tmp_path / "script.json"))
    monkeypatch.setenv("PYTHONPATH", str(Path(names.__file__).parent.parent.parent))

    def write(attempts):
        (tmp_path / "script.json").write_text(json.dumps(attempts))

    write({})
    return write


def _stub_python(path):
    """Write a stand-in for the interpreter that starts the stub instead of ``-m fnostab train``; return its path."""
    path.write_text(f'#!/bin/sh\npython="{sys.executable}"\n[ "$2" = fnostab ] || exec "$python" "$@"\n')
    with open(path, "a") as file:
        file.write(f'shift 3\nexec "$python" "{STUB}" "$@"\n')
    path.chmod(0o755)
    return str(path)


def most_at_once(log):
    """How many stubs were at work at the same time, by what they wrote to ``script.log``."""
    running, most = 0, 0
    for line in log.read_text().splitlines():
        running += 1 if line.startswith("start") else -1
        most = max(most, running)
    return most


def _call_here(launcher, place, given, resources):
    """Call a function in this process, which imports torch once for many tests."""
    function = load(place)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # Lightning sets the level at import
    return function(**given)


class Study:
    """`run_study` of `stage_a` with tiny networks, in this process."""

    def __init__(self, folder, settings):
        self.folder = folder
        self.settings = settings
        self.output = ""

    def start(self, *, arms=("control",), seeds=(0,), jobs=2, terminal=False, settings=None, **options):
        stream = StringIO()
        console = Console(file=stream, width=100, force_terminal=terminal)
        study = load_study("stage_a", "small", self.settings | (settings or {}))
        options = {"experiment": "stage_a", "output": self.folder / "outputs"} | options
        try:
            return run_study(study, arms=arms, seeds=seeds, jobs=jobs, console=console, **options)
        finally:
            self.output = stream.getvalue()


@pytest.fixture
def study(workplace, script, tiny, monkeypatch):
    monkeypatch.setattr(run_module, "POLL_S", 0.02)
    monkeypatch.setattr(study_upload, "DRAIN_S", 60.0)
    settings = dict(assignment.split("=") for assignment in tiny[1::2])
    return Study(workplace, settings)


@pytest.fixture
def when():
    """Do something from another thread as soon as a condition holds; also if it never does, so that no test hangs."""
    threads = []

    def later(condition, action, timeout_s=240):
        def wait():
            for _ in range(int(timeout_s / 0.02)):
                if condition() or stop.wait(0.02):
                    break
            if not stop.is_set():
                action()

        stop = threading.Event()
        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        threads.append((thread, stop))

    yield later
    for thread, stop in threads:
        stop.set()
        thread.join(5)


@pytest.fixture(scope="module")
def cluster():
    """A real Slurm of two nodes, up while a module's tests run."""
    if reason := missing():
        pytest.skip(f"no Slurm: {reason}")
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # a short path: sockets are in it
    folder.chmod(0o755)
    try:
        with Slurm(folder) as made:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def on_cluster(cluster, monkeypatch):
    """The same, found by this process and those that it starts; its queue is empty before and after."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(slurm, "QUEUE_AGE_S", 0.5)
    _forget()
    yield cluster
    cluster.empty()
    _forget()


def _forget():
    slurm.settings.cache_clear()
    slurm.forget_queue()


@pytest.fixture
def stub_environment(tmp_path):
    """Environment in which fnostab starts ``stub_trial.py`` for trials, and what writes its script: see `script`."""
    python, script = _stub_python(tmp_path / "stub_python"), tmp_path / "script.json"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(f"import sys\nsys.executable = {python!r}\n")
    path = os.pathsep.join([str(tmp_path / "site"), str(Path(names.__file__).parent.parent.parent)])
    script.write_text("{}")
    environment = {"PYTHONPATH": path, "STUB_SCRIPT": str(script), "STUB_IMPORTS": "all"}
    return environment, lambda attempts: script.write_text(json.dumps(attempts))


@pytest.fixture
def stub_setup(stub_environment):
    """The same as lines of a job's set-up."""
    environment, script = stub_environment
    return tuple(f"export {name}={value}" for name, value in environment.items()), script
