"""Processes of trials: side by side, dying in every way, adopted."""

import os
import signal
import time

import pytest
from launch_fixtures import most_at_once

from fnostab import gpus
from fnostab.errors import LaunchError
from fnostab.launch import local
from fnostab.launch.launcher import jobs_of
from fnostab.launch.local import LocalLauncher, default_jobs
from fnostab.record import names
from fnostab.record.journal import Journal, read_journal
from fnostab.record.lines import Event
from fnostab.record.outcomes import TRAINING_OUTCOMES, Outcome
from fnostab.study.study import load_study


@pytest.fixture
def trials(tmp_path, script):
    """A function that makes ``n`` trials of control, ready to be started."""

    def make(n=1):
        made = load_study("stage_a", "small").trials("e", tmp_path, arms=["control"], seeds=range(n))
        for trial in made:
            trial.spec.write(trial.directory / "trial.json")
        return made

    return make


def work_off(launcher, trials, timeout_s=120):
    waiting, ended = list(trials), []
    deadline = time.monotonic() + timeout_s
    while len(ended) < len(trials):
        assert time.monotonic() < deadline
        while waiting and launcher.free:
            launcher.submit([waiting.pop(0)])
        ended += launcher.poll()
        time.sleep(0.01)
    return ended


def wait_for_steps(trials):
    while any(trial.step is None for trial in trials):
        time.sleep(0.02)
        for trial in trials:
            trial.update()


def last_outcome(trial):
    events = [r for r, _ in read_journal(trial.directory / "journal.jsonl") if isinstance(r, Event)]
    return events[-1].payload


@pytest.mark.parametrize("jobs", [1, 3])
def test_no_more_trials_run_side_by_side_than_asked_for(trials, script, when, tmp_path, jobs):
    script({f"control-{seed}": ["held"] for seed in range(5)})
    log = tmp_path / "script.log"
    when(lambda: log.exists() and most_at_once(log) == jobs, (tmp_path / "script.go").touch)
    work_off(LocalLauncher(jobs, gpu=False), trials(5))
    assert most_at_once(log) == jobs


def test_a_trial_that_fails_stops_no_other(trials, script):
    script({"control-0": ["exit 3"], "control-1": ["signal 9"], "control-2": ["oom"]})
    ended = work_off(LocalLauncher(2, gpu=False), trials(5))
    assert {t.name: t.outcome for t in ended} == {
        "control-0": Outcome.INFRA_ERROR,
        "control-1": Outcome.KILLED,
        "control-2": Outcome.OOM,
        "control-3": Outcome.CONVERGED,
        "control-4": Outcome.CONVERGED,
    }


def test_who_dies_without_a_word_gets_an_outcome_with_the_reason(trials, script):
    script({"control-0": ["exit 3"], "control-1": ["silent 4"], "control-2": ["signal 9"], "control-3": ["signal 11"]})
    made = trials(4)
    work_off(LocalLauncher(4, gpu=False), made)
    reasons = [(t.outcome, t.reason) for t in made]
    assert reasons == [
        (Outcome.INFRA_ERROR, "exit status 3: RuntimeError: the disk melted"),
        (Outcome.INFRA_ERROR, "exit status 4: it left no message"),
        (Outcome.KILLED, "ended by SIGKILL (perhaps by the kernel, out of memory)"),
        (Outcome.KILLED, "ended by SIGSEGV"),
    ]
    for trial, (outcome, reason) in zip(made, reasons, strict=True):
        assert (last_outcome(trial)["outcome"], last_outcome(trial)["reason"]) == (outcome, reason)


def test_the_reason_is_of_this_attempt_not_of_the_one_before(trials, script):
    script({"control-0": ["exit 3", "silent 4"]})
    (trial,) = trials()
    work_off(LocalLauncher(1, gpu=False), [trial])
    trial.outcome = None
    work_off(LocalLauncher(1, gpu=False), [trial])
    assert trial.reason == "exit status 4: it left no message"


def test_a_failure_that_was_announced_before_the_process_died_stays_one(trials, script):
    """Leaving it out of the rates would flatter the arm."""
    script({"control-0": ["announce 9"]})
    (trial,) = trials()
    work_off(LocalLauncher(1, gpu=False), [trial])
    assert (trial.outcome, trial.failure_step, trial.finished) == (Outcome.NONFINITE, 3, True)
    assert "SIGKILL" in trial.reason
    assert last_outcome(trial)["rules_held"] == ["nonfinite"]


def test_a_folder_that_was_moved_meanwhile_is_not_made_again(trials, script):
    script({"control-0": ["hang"]})
    (trial,) = trials()
    launcher = LocalLauncher(1, gpu=False)
    launcher.submit([trial])
    wait_for_steps([trial])
    moved = trial.directory.rename(trial.directory.with_name("elsewhere"))
    os.kill(int(trial.owner.partition("@")[0]), signal.SIGKILL)
    while not launcher.poll():
        time.sleep(0.01)
    assert (trial.outcome, trial.unwritten) == (Outcome.KILLED, True)
    assert f"{trial.directory} was moved or deleted" in trial.reason
    assert not trial.directory.exists()
    assert (moved / "journal.jsonl").exists()


@pytest.mark.parametrize("metric", [names.TRAIN_LOSS, names.GRAD_NORM, None])
def test_a_value_that_was_recorded_as_not_finite_wins_without_an_announcement(trials, script, metric):
    """The process died between the two, or went on after a validation."""
    (trial,) = trials()
    script({"control-0": [f"spoilt {metric or trial.spec.judged}"]})
    work_off(LocalLauncher(1, gpu=False), [trial])
    assert (trial.outcome, trial.failure_step, trial.finished) == (Outcome.NONFINITE, 5, True)
    assert "SIGKILL" in trial.reason


def test_a_trial_that_is_at_work_already_is_waited_for_not_started_again(trials, tmp_path):
    (trial,) = trials()
    with Journal(trial.directory) as journal:
        launcher = LocalLauncher(1, gpu=False)
        launcher.submit([trial])
        assert launcher.poll() == []
        assert launcher.free == 0
        journal.event(names.OUTCOME_EVENT, {"outcome": "collapsed", "failure_step": 7})
    assert [t.outcome for t in launcher.poll()] == [Outcome.COLLAPSED]
    assert not (tmp_path / "script.log").exists()


def test_an_adopted_trial_that_dies_is_killed(trials):
    (trial,) = trials()
    with Journal(trial.directory) as journal:
        journal.record(0, {"lr": 0.1})
        launcher = LocalLauncher(1, gpu=False)
        launcher.submit([trial])
    work_off(launcher, [])
    gone = "its process (unknown) ended without recording an outcome"
    assert [(t.outcome, t.reason) for t in launcher.poll()] == [(Outcome.KILLED, gone)]


def test_when_two_launchers_start_a_trial_the_slower_one_waits_for_the_faster(trials, script):
    script({"control-0": ["exit 2"]})  # as a process does that finds the journal locked
    (trial,) = trials()
    launcher = LocalLauncher(1, gpu=False)
    launcher.submit([trial])
    with Journal(trial.directory) as journal:
        launcher._running[0].process.wait()
        assert launcher.poll() == []
        journal.event(names.OUTCOME_EVENT, {"outcome": "converged", "failure_step": None})
    assert [t.outcome for t in launcher.poll()] == [Outcome.CONVERGED]


def test_cancelled_trials_write_killed_and_leave_no_process(trials, script, tmp_path):
    script({"control-0": ["hang"], "control-1": ["hang"]})
    made = trials(2)
    launcher = LocalLauncher(2, gpu=False)
    for trial in made:
        launcher.submit([trial])
    wait_for_steps(made)
    launcher.cancel()
    assert [(t.outcome, t.reason) for t in made] == [(Outcome.KILLED, "asked to end")] * 2
    assert launcher.free == 2
    assert (tmp_path / "script.log").read_text().count("end") == 2


def test_a_trial_that_does_not_end_when_asked_is_ended(trials, script, monkeypatch):
    monkeypatch.setattr(local, "GRACE_S", 0.2)
    script({"control-0": ["deaf"]})
    (trial,) = trials()
    launcher = LocalLauncher(1, gpu=False)
    launcher.submit([trial])
    wait_for_steps([trial])
    launcher.cancel()
    assert trial.outcome is Outcome.KILLED
    assert "SIGKILL" in trial.reason


def test_gpus_are_taken_in_turns_and_cpu_trials_get_one_thread(trials, monkeypatch):
    monkeypatch.setattr(gpus, "present_gpus", lambda: 2)
    seen = []

    def start(command, env, **_):
        seen.append((env.get("CUDA_VISIBLE_DEVICES"), env.get("OMP_NUM_THREADS")))
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(local.subprocess, "Popen", start)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    made = trials(3)
    assert (default_jobs(gpu=True), default_jobs(gpu=False) >= 1) == (2, True)
    launcher = LocalLauncher(3, gpu=True)
    for slot, trial in enumerate(made):
        launcher._running = [local._Job(made[0], other, None) for other in range(slot)]
        with pytest.raises(LaunchError, match=f"can't start control-{slot}: No such file"):
            launcher.submit([trial])
    with pytest.raises(LaunchError):
        LocalLauncher(1, gpu=False).submit([made[0]])
    assert seen == [("0", None), ("1", None), ("0", None), (None, "1")]


@pytest.mark.parametrize(
    ("given", "present", "used"), [("2, 3", 4, ["2", "3"]), ("", 4, []), ("0", 0, []), ("1,-1,2", 4, ["1"])]
)
def test_only_gpus_that_this_process_was_given_are_used(monkeypatch, given, present, used):
    """A job on a cluster gets a part of a node's, and where there is no driver, there are none."""
    monkeypatch.setattr(gpus, "present_gpus", lambda: present)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    launcher = LocalLauncher(2, gpu=True)
    assert (launcher._gpu_names, launcher.gpus) == (used, len(used))
    assert default_jobs(gpu=True) == len(used) or not used


def test_no_trial_at_a_time_is_refused():
    with pytest.raises(LaunchError, match="jobs=0: at least 1 is needed"):
        LocalLauncher(0, gpu=False)


class TestLockstep:
    """Real trainings: the stub knows no lockstep."""

    @pytest.fixture
    def seeds(self, tmp_path, tiny):
        settings = dict(assignment.split("=") for assignment in tiny[1::2])
        study = load_study("stage_a", "small", settings | {"execution.device": "cpu"})
        made = study.trials("e", tmp_path, arms=["control"], seeds=range(2))
        for trial in made:
            trial.spec.write(trial.directory / "trial.json")
        return made

    def test_seeds_of_an_arm_share_a_process(self, seeds):
        launcher = LocalLauncher(1, gpu=False, lockstep=2)
        launcher.submit(seeds)
        assert launcher.free == 0
        while not (ended := launcher.poll()):
            time.sleep(0.05)
        assert ended == seeds
        assert all(trial.outcome in TRAINING_OUTCOMES for trial in seeds)
        assert seeds[0].owner == seeds[1].owner is not None

    def test_both_are_killed_with_it_and_go_on(self, seeds):
        launcher = LocalLauncher(1, gpu=False, lockstep=2)
        launcher.submit(seeds)
        wait_for_steps(seeds)
        os.kill(int(seeds[0].owner.partition("@")[0]), signal.SIGKILL)
        while not launcher.poll():
            time.sleep(0.05)
        assert [(t.outcome, t.reason[:16]) for t in seeds] == [(Outcome.KILLED, "ended by SIGKILL")] * 2
        for trial in seeds:
            trial.begin_again()
        launcher.submit(seeds)
        while not launcher.poll():
            time.sleep(0.05)
        assert all(trial.outcome in TRAINING_OUTCOMES for trial in seeds)

    def test_a_job_holds_seeds_of_one_arm(self, seeds, tmp_path):
        launcher = LocalLauncher(1, gpu=False, lockstep=2)
        waiting = load_study("stage_a", "small").trials("e", tmp_path, arms=["control", "opt_fix"], seeds=range(3))
        assert [[trial.name for trial in job] for job in jobs_of(waiting, launcher)] == [
            ["control-0", "control-1"],
            ["opt_fix-0", "opt_fix-1"],
            ["control-2"],
            ["opt_fix-2"],
        ]
