"""Trials as forks of one process, against trials in processes of their own: nobody can tell which it was."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from moments import wait_at
from safetensors.torch import load_file

from fnostab import gpus
from fnostab.launch import local
from fnostab.launch.local import LocalLauncher
from fnostab.record import names
from fnostab.record.attempt import is_being_written
from fnostab.record.journal import read_journal
from fnostab.record.lines import Event, Point
from fnostab.record.outcomes import TRAINING_OUTCOMES, Outcome
from fnostab.record.progress import TrialProgress
from fnostab.study.study import load_study

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")

OF_TIME_AND_MEMORY = ("system/", names.PEAK_MEMORY, names.SAMPLES_PER_S)
NETWORKS = """
import sys
from fnostab.ptychography.models import build_generator

def Broken(config):
    def fail(*_):
        raise RuntimeError(f"started as {sys.argv[1:]}, {sys.stdin.read()!r} on stdin")

    network = build_generator(config.model_copy(update={"architecture": "hybrid"}))
    network.register_forward_pre_hook(fail)
    return network

def Draws(config):
    import random, numpy
    print(random.random(), numpy.random.random())
    return build_generator(config.model_copy(update={"architecture": "hybrid"}))
"""
FORKED_LATE = """
import os, signal, time

fork = os.fork

def late():
    pid = fork()
    while not pid and signal.SIGTERM not in signal.sigpending():
        time.sleep(0.01)
    return pid

os.fork = late
"""
DRAWS = {"model.architecture": "networks.Draws"}


@pytest.fixture
def make(tmp_path, tiny, monkeypatch):
    """A function that makes ``n`` tiny trials in a folder, ready to be started."""
    (tmp_path / "networks.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)  # where this process finds its file
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(names.__file__).parent.parent.parent)]))

    def make(folder="trials", n=1, **settings):
        given = dict(assignment.split("=") for assignment in tiny[1::2])
        study = load_study("stage_a", "small", given | {"execution.device": "cpu"} | settings)
        trials = study.trials("e", tmp_path, arms=["control"], seeds=range(n))
        made = [TrialProgress(trial.spec, tmp_path / folder / trial.name) for trial in trials]
        for trial in made:
            trial.spec.write(trial.directory / "trial.json")
        return made

    return make


@pytest.fixture
def go(make, tmp_path, monkeypatch):
    """A file for which trials wait after some steps."""
    for name, value in wait_at(3, tmp_path / "go", tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path / "go"


@pytest.fixture
def endless_imports(make, tmp_path):
    """The process that forks never comes to an end of its imports."""
    (tmp_path / "lightning.py").write_text("import time\ntime.sleep(600)\n")


@pytest.fixture
def launcher():
    return LocalLauncher(2, gpu=False)


def work_off(launcher, trials):
    waiting, ended = list(trials), []
    while len(ended) < len(trials):
        while waiting and launcher.free:
            launcher.submit([waiting.pop(0)])
        ended += launcher.poll()
        time.sleep(0.01)


def wait_until(condition, *arguments):
    deadline = time.monotonic() + 240
    while not condition(*arguments):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_for_all(launcher):
    wait_until(lambda: launcher.poll() is not None and launcher.free == launcher.jobs)


def trains(trial):
    trial.update()
    return trial.step is not None


def pid(trial):
    return int(trial.owner.partition("@")[0])


def cold(trial):
    command = [sys.executable, "-m", "fnostab", "train", "--trial", str(trial.directory / "trial.json")]
    with open(trial.directory / "stderr.log", "ab") as log:
        return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log).returncode


def recorded(trial):
    """Points but those of time and memory, and events but those that name the process or a time."""
    records = [record for record, _ in read_journal(trial.directory / "journal.jsonl")]
    points = [(name, r.step, value) for r in records if isinstance(r, Point) for name, value in r.values.items()]
    events = [(r.name, r.payload) for r in records if isinstance(r, Event) and r.name != names.TAGS_EVENT]
    return [p for p in points if not p[0].startswith(OF_TIME_AND_MEMORY)], events


def environment(trial):
    return json.loads((trial.directory / "artifacts" / "environment.json").read_text())


def test_a_fork_records_what_a_process_of_its_own_does_bit_by_bit(make, launcher):
    forks, processes = make("forks", 3), make("processes", 3)
    work_off(launcher, forks)
    for fork, process in zip(forks, processes, strict=True):
        assert cold(process) == 0
        points, events = recorded(fork)
        assert len(points) > 100
        assert (points, events) == recorded(process)
        assert environment(fork) == environment(process)
        one, other = (load_file(trial.directory / "artifacts" / "best.safetensors") for trial in (fork, process))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert (fork.directory / "stderr.log").read_text() == (process.directory / "stderr.log").read_text()


def test_trials_of_a_launcher_are_forks_of_one_process_and_lead_sessions(make, launcher, go):
    trials = make(n=2, **DRAWS)
    for trial in trials:
        launcher.submit([trial])
    for trial in trials:
        wait_until(trains, trial)
    processes = [psutil.Process(pid(trial)) for trial in trials]
    assert len({process.pid for process in processes}) == 2
    assert len({process.ppid() for process in processes}) == 1
    assert [os.getsid(process.pid) for process in processes] == [process.pid for process in processes]
    launcher.cancel()
    assert [trial.outcome for trial in trials] == [Outcome.KILLED] * 2
    assert [trial.reason for trial in trials] == ["SystemExit: ended by SIGTERM"] * 2
    drawn = [(trial.directory / "stderr.log").read_text().split()[:2] for trial in trials]
    assert len({number for pair in drawn for number in pair}) == 4  # unseeded generators differ, as in two processes


def test_what_a_fork_says_when_it_fails_is_what_a_process_of_its_own_says(make, launcher):
    broken = {"model.architecture": "networks.Broken"}
    (fork,), (process,) = make("fork", **broken), make("process", **broken)
    work_off(launcher, [fork])
    assert cold(process) == 1
    said = [(trial.directory / "stderr.log").read_text() for trial in (fork, process)]
    assert said[0].replace(str(fork.directory), str(process.directory)) == said[1]
    expected = f"RuntimeError: started as ['train', '--trial', '{fork.directory / 'trial.json'}'], '' on stdin"
    assert said[0].startswith("Traceback")
    assert said[0].endswith(f"{expected}\n")
    assert (fork.outcome, fork.reason) == (Outcome.INFRA_ERROR, expected)


def test_an_import_that_fails_is_said_of_each_trial(make, launcher, tmp_path):
    (tmp_path / "lightning.py").write_text("raise ImportError('half of it is missing')")
    trials = make(n=2)
    work_off(launcher, trials)
    reason = "exit status 1: ImportError: half of it is missing"
    assert [(trial.outcome, trial.reason) for trial in trials] == [(Outcome.INFRA_ERROR, reason)] * 2


def test_with_threads_nothing_is_forked_and_the_log_says_so(make, launcher, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    trials = make(n=2)
    work_off(launcher, trials)
    assert all(trial.outcome in TRAINING_OUTCOMES for trial in trials)
    log = (trials[0].directory / "stderr.log").read_text()
    assert "error: imported modules run 2 threads, so trials can't be forked" in log


def test_the_death_of_the_process_that_forks_costs_nothing(make, launcher, go):
    first, second = make(n=2)
    launcher.submit([first])
    wait_until(trains, first)
    forking = psutil.Process(pid(first)).ppid()
    launcher._server._process.kill()
    launcher._server._process.wait()
    launcher.submit([second])  # by a new one
    wait_until(trains, second)
    assert psutil.Process(pid(second)).ppid() != forking
    go.touch()
    wait_for_all(launcher)
    assert all(trial.outcome in TRAINING_OUTCOMES for trial in (first, second))
    assert launcher.free == 2


def test_a_trial_that_is_killed_with_nobody_left_to_learn_of_it_is_killed(make, launcher, go):
    (trial,) = make()
    launcher.submit([trial])
    wait_until(trains, trial)
    os.kill(psutil.Process(pid(trial)).ppid(), signal.SIGKILL)
    os.kill(pid(trial), signal.SIGKILL)
    wait_until(launcher.poll)
    assert trial.outcome is Outcome.KILLED


def test_the_death_of_the_process_before_it_forked_is_that_of_its_trials(make, launcher, endless_imports):
    trials = make(n=2)
    for trial in trials:
        launcher.submit([trial])
    launcher._server._process.terminate()
    wait_for_all(launcher)
    assert [(trial.outcome, trial.reason) for trial in trials] == [(Outcome.KILLED, "ended by SIGTERM")] * 2


def test_without_a_launcher_the_process_ends_and_its_trials_go_on(make, go):
    (trial,) = make()
    launcher = LocalLauncher(1, gpu=False)
    launcher.submit([trial])
    wait_until(trains, trial)
    forking = psutil.Process(pid(trial)).parent()
    del launcher
    assert not forking.is_running()
    assert is_being_written(trial.directory)
    next_one = LocalLauncher(1, gpu=False)
    next_one.submit([trial])  # adopted
    go.touch()
    wait_until(next_one.poll)
    assert trial.outcome in TRAINING_OUTCOMES


def test_a_trial_cancelled_before_it_was_forked_is_killed(make, launcher, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(FORKED_LATE)
    (trial,) = make()
    launcher.submit([trial])
    assert launcher.cancel() == [trial]
    assert (trial.outcome, trial.reason) == (Outcome.KILLED, "asked to end")


def test_the_process_that_forks_heeds_no_signal_that_is_meant_for_trials(make, launcher, go):
    (trial,) = make()
    launcher.submit([trial])
    wait_until(trains, trial)
    forking = psutil.Process(pid(trial)).parent()
    for number in (signal.SIGTERM, signal.SIGINT):
        forking.send_signal(number)
    os.kill(pid(trial), signal.SIGTERM)
    wait_until(launcher.poll)
    assert (trial.outcome, trial.reason) == (Outcome.KILLED, "SystemExit: ended by SIGTERM")
    assert forking.is_running()


def test_a_process_that_hangs_in_its_imports_can_be_ended(make, launcher, endless_imports, monkeypatch):
    monkeypatch.setattr(local, "GRACE_S", 0.2)
    (trial,) = make()
    launcher.submit([trial])
    launcher._server._process.send_signal(signal.SIGSTOP)  # deaf to SIGTERM
    launcher.cancel()
    assert (trial.outcome, launcher.free) == (Outcome.KILLED, 2)
    assert "SIGKILL" in trial.reason


def test_with_a_gpu_trials_are_processes_of_their_own(make, monkeypatch):
    """A fork can't use CUDA."""
    monkeypatch.setattr(gpus, "present_gpus", lambda: 1)
    (trial,) = make()
    launcher = LocalLauncher(1, gpu=True)
    launcher.submit([trial])
    assert "--trial" in launcher._running[0].process.args
    wait_until(launcher.poll)
    assert trial.outcome in TRAINING_OUTCOMES
