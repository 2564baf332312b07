"""Trials that end without a result: what is said of those that fail alike."""

from trial_records import trial_spec

from fnostab.launch.retries import ATTEMPTS, FailuresAlike, Retries
from fnostab.record.outcomes import Outcome
from fnostab.record.progress import TrialProgress
from fnostab.record.stderr_tail import STDERR_FILE


def broken(folder, seed, reason="exit status 1: no data", **fields):
    spec = trial_spec(seed=seed, argv=("python", "train.py"))
    directory = folder / f"control-{seed}"
    directory.mkdir()
    (directory / STDERR_FILE).write_text(f"Traceback\n  no data\ncontrol-{seed}: infra_error\n")
    trial = TrialProgress(spec, directory)
    for name, value in {"outcome": Outcome.INFRA_ERROR, "reason": reason, **fields}.items():
        setattr(trial, name, value)
    return trial


def test_the_second_trial_that_fails_alike_before_a_step_ends_it_with_the_end_of_its_log(tmp_path):
    alike = FailuresAlike()
    assert alike.take(broken(tmp_path, 0, step=7)) is None
    assert alike.take(broken(tmp_path, 1, reason="exit status 1: another")) is None
    assert alike.take(broken(tmp_path, 2)) is None
    said = alike.take(broken(tmp_path, 3))
    assert alike.found
    assert said == (
        "control-2 and control-3 failed alike before their first step, so no more trials are started: "
        "exit status 1: no data\n"
        f"{tmp_path}/control-3/stderr.log ends with\n  Traceback\n    no data\nfix that, then repeat the command"
    )


def test_an_empty_log_is_called_so(tmp_path):
    alike = FailuresAlike()
    for seed in (0, 1):
        trial = broken(tmp_path, seed)
        (trial.directory / STDERR_FILE).write_text("")
        said = alike.take(trial)
    assert said.splitlines()[1:] == [f"{tmp_path}/control-1/stderr.log is empty", "fix that, then repeat the command"]


def test_a_trial_that_is_to_be_tried_once_is_tried_whatever_came_before_and_not_again(tmp_path):
    given_up = broken(tmp_path, 0, fruitless=ATTEMPTS)
    assert not Retries().wants(given_up)
    once = Retries(once=True)
    assert once.wants(given_up)
    assert not once.wants_again(given_up)
    assert once.wants(broken(tmp_path, 1, outcome=Outcome.OOM))
    assert not once.wants(broken(tmp_path, 2, outcome=Outcome.CONVERGED))
