"""A shootout of twelve real trials as a job array on a real Slurm, and everything that befalls such a study.

Two arms are the same, so that every trial has a twin: whatever befell one of them, their curves must be equal.
"""

import math
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.fault_checks import check_trial, count_running, differences, read_runs
from benchmarks.fault_places import Place, Server
from fnostab.monitor.state import read_state
from fnostab.record import names
from fnostab.record.job_arrays import JobArray
from fnostab.record.journal import read_journal
from fnostab.record.lines import Event
from fnostab.record.progress import TrialProgress
from fnostab.record.trial import TrialSpec

SEEDS = 6
AWAY_S = 30
TIMEOUT_S = 600
LEFT_S = 45  # at least, to a job whose time is nearly up, and less than its notice of a minute or little more
SETTINGS = {
    "model.architecture": "slurm_network.Network",
    "data.scan_stride_train": 3,
    "training.epochs": 12,
}


@pytest.fixture
def place(on_cluster, tmp_path, monkeypatch):
    """A directory with a study, its cluster file, and a store behind a server that is up."""
    folder = tmp_path / "store"
    folder.mkdir()
    with AwayServer(f"sqlite:///{folder}/mlflow.db", folder, 5900) as server:
        made = Place(tmp_path / "place", server.database, server)
        made.environment |= on_cluster.environment
        made.environment["PYTHONPATH"] += f":{Path(__file__).parent}"
        made.server = server
        yield made


class AwayServer(Server):
    """A server that stays away for a while after it was killed."""

    def kill(self):
        os.killpg(self._process.pid, signal.SIGKILL)

    def _start(self):
        if self.starts:
            time.sleep(AWAY_S)
        return super()._start()


def trials_of(place):
    found = {}
    for path in place.output.glob("twins/*/*/trial.json"):
        trial = TrialProgress(TrialSpec.read(path), path.parent)
        trial.update()
        found[trial.name] = trial
    return found


def until(condition, process=None):
    deadline = time.monotonic() + TIMEOUT_S
    while not (answer := condition()):
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None
        time.sleep(0.1)
    return answer


def seconds_of(cluster, job):
    """For how long a job has run."""
    parts = cluster.ask("squeue", "--noheader", f"--jobs={job}", "--format=%M").strip().split(":")
    return sum(int(part) * 60**place for place, part in enumerate(reversed(parts)))


def job_of(trial):
    return trial.owner.split()[-3]


def kept_step(trial):
    """Step of the state on disk: 0 where writing is so slow that it was not written again."""
    return read_state(trial.directory / "resume.safetensors")["global_step"]


def events(trial, name):
    return [r for r, _ in read_journal(trial.directory / "journal.jsonl") if isinstance(r, Event) and r.name == name]


def test_whatever_befalls_a_study_each_trial_ends_once_as_its_twin(place, on_cluster, tmp_path, request):
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "mlflow.py").write_text("raise SystemExit('a trial imports mlflow')\n")
    end = tmp_path / "end"
    options = {"model.options": {"fails": "control-0", "waits_for": str(end)}}
    study = place.write_study("twins", {"control": {}, "twin": {}}, **SETTINGS, **options)
    cluster = place.folder / "cluster.yaml"
    cluster.write_text(
        f"jobs: 12\ntime_minutes: 15\nnotice_s: 60\nsetup: ['export PYTHONPATH={tmp_path}/without:$PYTHONPATH']\n"
    )
    command = ["run", str(study), "--launcher", "slurm", "--cluster", str(cluster), "--seeds", str(SEEDS)]

    driver = place.start(*command)
    request.addfinalizer(driver.kill)
    victims = [f"control-{seed}" for seed in range(1, 4)]
    until(lambda: all((t := trials_of(place).get(name)) and (t.step or 0) > 15 for name in victims), driver)
    killed, preempted, timed_out = (trials_of(place)[name] for name in victims)
    assert len({job_of(t).partition("_")[0] for t in (killed, preempted, timed_out)}) == 1  # one array
    node = on_cluster.ask("squeue", "--noheader", f"--jobs={job_of(killed)}", "--format=%N").strip()
    process = psutil.Process(int(killed.owner.partition("@")[0]))
    process.kill()
    process.wait(TIMEOUT_S)
    kept = {killed.name: kept_step(killed)}
    on_cluster.ask("scancel", "--signal=USR2", job_of(preempted))
    # A limit that its job had passed already, on a slow machine, would end it while it queues itself again
    minutes = math.ceil((seconds_of(on_cluster, job_of(timed_out)) + LEFT_S) / 60)
    on_cluster.ask("scontrol", "update", f"jobid={job_of(timed_out)}", f"timelimit={minutes}")
    place.server.kill()
    away_since = time.monotonic()
    assert on_cluster.crash_node("n1") >= 3
    struck = {name for name, t in trials_of(place).items() if t.outcome is None}
    for trial in (preempted, timed_out):
        until(lambda trial=trial: events(trial, names.OUTCOME_EVENT), driver)
        kept[trial.name] = kept_step(trial)
    longer = ("scontrol", "update", f"jobid={job_of(timed_out)}", "timelimit=15")  # its next time is long enough
    until(lambda: on_cluster.accepts(*longer))  # once it is in the queue again
    until(lambda: time.monotonic() - away_since > AWAY_S / 2, driver)
    driver.kill()
    driver.wait()
    on_cluster.start_node("n1")
    until(lambda: place.server.starts == 2)
    until(lambda: _answers(place))
    log = place.folder / "commands.log"
    second = place.start(*command)
    request.addfinalizer(second.kill)
    until(lambda: "trials are finished already" in log.read_text(), second)  # it adopts the others
    end.touch()
    assert second.wait(TIMEOUT_S) == 0, log.read_text()[-3000:]

    assert f"{2 * SEEDS} of {2 * SEEDS} trials are finished already" not in log.read_text()
    # Slurm queues a trial again itself, but for the one that was killed, unless its job died with its node, and for the
    # one whose time was up, where a slow machine ended it first
    paths = place.output.glob("twins/*/slurm/*.json")
    arrays = sorted((JobArray.model_validate_json(path.read_bytes()) for path in paths), key=lambda a: a.submitted_ms)
    again = {name for array in arrays[1:] for job in array.trials for name in job}
    assert len(arrays[0].trials) == 2 * SEEDS
    assert again <= {killed.name, timed_out.name}
    assert killed.name in again or node == "n1"
    trials = trials_of(place)
    runs = read_runs(place.database, "twins")
    found = {name: check_trial(trial.directory, runs) for name, trial in trials.items()}
    assert len(found) == 2 * SEEDS
    assert {name: each.problems for name, each in found.items() if each.problems} == {}
    assert sum(each.recorded for each in found.values()) == sum(each.stored for each in found.values()) > 10_000
    assert count_running(runs) == 0
    assert found["control-0"].outcome == "nonfinite"
    for seed in range(1, SEEDS):
        assert differences(found[f"control-{seed}"].curve, found[f"twin-{seed}"].curve) == []
    assert {"control-4", "twin-4"} & struck
    for trial in (killed, preempted, timed_out):
        first, *_, last = events(trial, names.OUTCOME_EVENT)
        assert first.payload["outcome"] == "killed"
        assert last.payload["outcome"] == trials["twin-1"].outcome == "converged"
        assert events(trial, names.RESUMED_EVENT)[0].payload["step"] == kept[trial.name]
    assert any(kept.values())
    assert not events(killed, names.OUTCOME_EVENT)[0].payload.get("requested")
    assert events(preempted, names.OUTCOME_EVENT)[0].payload["requested"]
    assert on_cluster.states() == {}


def _answers(place):
    from fnostab.errors import FnostabError
    from fnostab.tracking import wait_until_ready

    try:
        wait_until_ready(place.uri, 1)
    except FnostabError:
        return False
    return True
