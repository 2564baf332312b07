"""Recorder of a script's training: what it writes, when it refuses, and what it costs."""

import errno
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fnostab.errors import JournalError
from fnostab.record import names
from fnostab.record.journal import Journal, read_journal
from fnostab.record.lines import FILE_NAME, Event, Point
from fnostab.record.outcomes import FAILURES
from fnostab.record.program_journal import ATTEMPT
from fnostab.record.recorder import ANNOUNCED, RANK_VARIABLES, session_sink
from fnostab.recorder import Recorder

ROOT = Path(__file__).parent.parent.parent
HEAVY = ("torch", "lightning", "mlflow", "pydantic", "numpy", "filelock", "psutil", "yaml")


@pytest.fixture
def trial(tmp_path, monkeypatch):
    """Directory of a trial whose attempt 'first' is under way."""
    for name in RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FNOSTAB_JOURNAL", str(tmp_path))
    monkeypatch.delenv("FNOSTAB_AFTER_FAILURE", raising=False)
    begin(tmp_path, monkeypatch, "first")
    return tmp_path


def begin(directory, monkeypatch, token):
    with Journal(directory) as journal:
        journal.event(names.TAGS_EVENT, {names.OWNER: "1@here", ATTEMPT: token})
    monkeypatch.setenv("FNOSTAB_TOKEN", token)


def records(directory):
    return [record for record, _ in read_journal(directory / FILE_NAME)][1:]


def points(directory):
    return [(r.step, dict(r.values), dict(r.nonfinite)) for r in records(directory) if isinstance(r, Point)]


def events(directory):
    return [(r.name, dict(r.payload)) for r in records(directory) if isinstance(r, Event)]


def test_the_import_loads_nothing_heavy():
    code = f"import sys, fnostab.recorder; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert answer.stdout.split() == []


def test_it_knows_the_failures_that_the_rules_know():
    assert tuple(str(outcome) for outcome in FAILURES) == ANNOUNCED


def test_what_is_said_is_in_the_journal_under_the_names_of_the_contract(trial):
    with Recorder() as rec:
        rec.scheduled(2)
        assert rec.step(0, loss=1.5, grad_norm=2, lr=0.1, tokens=7)
        assert rec.validation(0, loss=3.0, accuracy=0.5)
        assert rec.step(np.int64(1), loss=np.float32(0.5))
    assert events(trial)[0] == ("started", {"scheduled_steps": 2})
    assert points(trial) == [
        (0, {"train/loss": 1.5, "grad_norm/total": 2.0, "lr": 0.1, "tokens": 7.0}, {}),
        (0, {"val/loss": 3.0, "val/accuracy": 0.5}, {}),
        (1, {"train/loss": 0.5}, {}),
    ]


def test_the_first_nonfinite_value_is_announced_at_once_and_ends_the_training(trial):
    with Recorder() as rec:
        assert rec.step(0, loss=1.0)
        assert not rec.step(1, loss=float("nan"), grad_norm=float("-inf"))
        assert events(trial) == [
            ("nonfinite", {"step": 1, "where": ["loss", "gradient"], "loss": "nan", "norm": "-inf"}),
            ("tags", {"fnostab.outcome": "nonfinite", "fnostab.failure_step": "1"}),
        ]
        assert not rec.step(2, loss=float("inf"))
        rec.failed("collapsed", 2)
    assert [name for name, _ in events(trial)] == ["nonfinite", "tags", "recorded"]
    assert points(trial)[1] == (1, {}, {"train/loss": "nan", "grad_norm/total": "-inf"})


def test_a_validation_loss_that_is_not_finite_is_announced_also_where_a_retry_repeats_the_step(trial, monkeypatch):
    failed = ("tags", {"fnostab.outcome": "nonfinite", "fnostab.failure_step": "1"})
    with Recorder() as rec:
        assert rec.validation(1, loss=1.0)
    begin(trial, monkeypatch, "second")
    with Recorder() as rec:
        assert not rec.validation(1, loss=float("nan"))
        assert not rec.validation(2, loss=float("inf"))
    assert events(trial).count(failed) == 1
    assert failed == events(trial)[-2]


def test_it_goes_on_where_the_study_says_so(trial, monkeypatch):
    monkeypatch.setenv("FNOSTAB_AFTER_FAILURE", "continue")
    with Recorder() as rec:
        assert rec.step(0, loss=float("nan"))
        assert rec.step(1, loss=1.0)


def test_a_failure_that_the_script_announces_is_one(trial):
    with Recorder() as rec:
        rec.step(0, loss=1.0)
        rec.failed("collapsed", 0)
        assert not rec.step(1, loss=1.0)
        with pytest.raises(JournalError, match=r"failed\('bad'\): expected one of nonfinite"):
            rec.failed("bad", 1)
    assert ("tags", {"fnostab.outcome": "collapsed", "fnostab.failure_step": "0"}) in events(trial)


def test_outside_a_study_it_writes_nothing_and_still_says_when_to_stop(tmp_path, monkeypatch):
    monkeypatch.delenv("FNOSTAB_JOURNAL", raising=False)
    monkeypatch.chdir(tmp_path)
    with Recorder() as rec:
        rec.scheduled(5)
        assert rec.step(0, loss=1.0)
        assert rec.step(0, loss=1.0)
        assert not rec.step(1, loss=float("inf"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("variable", RANK_VARIABLES)
def test_only_rank_0_records(trial, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    with Recorder() as rec:
        assert rec.step(0, loss=1.0)
    assert records(trial) == []
    monkeypatch.setenv(variable, "0")
    with Recorder() as rec:
        rec.step(0, loss=1.0)
    assert len(points(trial)) == 1


def test_a_fork_records_nothing_and_lets_nobody_in(trial):
    with Recorder() as rec:
        rec.step(0, loss=1.0)
        child = os.fork()
        if child == 0:
            with rec:
                rec.step(1, loss=9.0)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        with pytest.raises(JournalError, match="only one process"):
            Recorder()
        rec.step(1, loss=2.0)
    assert [values["train/loss"] for _, values, _ in points(trial)] == [1.0, 2.0]


def test_a_second_process_is_refused(trial):
    with Recorder():
        code = "from fnostab.recorder import Recorder; Recorder()"
        answer = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
    assert answer.returncode == 1
    assert "already being recorded: only one process may record a trial" in answer.stderr.splitlines()[-1]


def test_a_process_of_an_earlier_attempt_is_refused(trial, monkeypatch):
    begin(trial, monkeypatch, "second")
    monkeypatch.setenv("FNOSTAB_TOKEN", "first")
    with pytest.raises(JournalError, match="is at another attempt than this process"):
        Recorder()
    monkeypatch.setenv("FNOSTAB_TOKEN", "second")
    Recorder().close()


@pytest.mark.parametrize("again", [3, 2])
def test_steps_rise_within_an_attempt(trial, again):
    with Recorder() as rec:
        rec.step(3, loss=1.0)
        with pytest.raises(JournalError, match=f"step {again} comes after step 3"):
            rec.step(again, loss=1.0)
    with Recorder() as rec, pytest.raises(JournalError, match=f"step {again} comes after step 3"):
        rec.step(again, loss=1.0)


def test_a_step_may_have_validations_of_several_data_sets_but_each_only_once(trial):
    with Recorder() as rec:
        rec.validation(3, loss=1.0)
        rec.validation(3, other_loss=2.0)
        with pytest.raises(JournalError, match="validation 3 comes after validation 3"):
            rec.validation(3, loss=1.0)
    with Recorder() as rec, pytest.raises(JournalError, match="validation 3 comes after validation 3"):
        rec.validation(3, other_loss=2.0)
    assert [values for _, values, _ in points(trial)] == [{"val/loss": 1.0}, {"val/other_loss": 2.0}]


def test_of_a_step_that_a_retry_repeats_the_first_record_counts(trial, monkeypatch):
    with Recorder() as rec:
        for step in range(3):
            rec.step(step, loss=float(step))
        rec.validation(2, loss=5.0)
    begin(trial, monkeypatch, "second")
    with Recorder() as rec:
        for step in range(4):
            rec.step(step, loss=10.0 + step, extra=1.0)
        rec.validation(2, loss=6.0)
    curve = {step: values["train/loss"] for step, values, _ in points(trial) if "train/loss" in values}
    assert curve == {0: 0.0, 1: 1.0, 2: 2.0, 3: 13.0}
    assert [values["val/loss"] for _, values, _ in points(trial) if "val/loss" in values] == [5.0]
    assert events(trial).count(("tags", {names.RESTARTED: "true"})) == 1


def test_a_retry_may_repeat_steps_of_earlier_attempts_but_not_its_own(trial, monkeypatch):
    with Recorder() as rec:
        rec.step(3, loss=1.0)
    begin(trial, monkeypatch, "second")
    with Recorder() as rec:
        rec.step(3, loss=1.0)
    with Recorder() as rec, pytest.raises(JournalError, match="step 0 comes after step 3"):
        rec.step(0, loss=1.0)


@pytest.mark.parametrize("value", ["1.0", 1j, np.complex64(1), None.__class__, [1], np.zeros(2), object(), 10**400])
def test_what_is_no_number_is_refused_in_one_line(trial, value):
    with Recorder() as rec, pytest.raises(JournalError, match=r"loss: expected (a|one) number, got") as error:
        rec.step(0, loss=value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("step", [1.0, "1", -1, 2**63])
def test_a_step_is_a_whole_number(trial, step):
    with Recorder() as rec:
        for record in (rec.step, rec.validation):
            with pytest.raises(JournalError, match="expected a"):
                record(step, loss=1.0)
        rec.step(0, loss=1.0)
    assert points(trial) == [(0, {"train/loss": 1.0}, {})]


@pytest.mark.parametrize("name", ["a\nb", "train/loss", "val/loss", "a" * 300])
def test_a_metric_needs_a_name_of_its_own(trial, name):
    with Recorder() as rec, pytest.raises(JournalError):
        rec.step(0, **{name: 1.0})


@pytest.mark.parametrize("name", ["constant_output_loss", "last_step", "nan_events"])
def test_names_by_which_trials_are_judged_are_not_the_scripts(trial, name):
    with Recorder() as rec, pytest.raises(JournalError, match=f"step.{name}=.* give yours another name"):
        rec.step(0, loss=1.0, **{name: 0.5})
    assert points(trial) == []


@pytest.mark.parametrize("name", ["loss", "val_loss", "val/loss"])
def test_a_validation_loss_has_one_name_however_it_is_spelt(trial, name):
    with Recorder() as rec:
        assert rec.validation(0, **{name: 0.5})
        assert not rec.validation(step=1, **{name: math.nan})
    assert points(trial) == [(0, {"val/loss": 0.5}, {}), (1, {}, {"val/loss": "nan"})]
    assert ("tags", {"fnostab.outcome": "nonfinite", "fnostab.failure_step": "1"}) in events(trial)


def test_two_spellings_of_one_validation_value_are_refused(trial):
    with Recorder() as rec, pytest.raises(JournalError, match=r"validation\(loss, val_loss\): two of these"):
        rec.validation(0, loss=0.5, val_loss=0.6)
    assert points(trial) == []


def test_a_step_may_be_given_by_name(trial):
    with Recorder() as rec:
        rec.step(step=2, loss=1.0)
        rec.failed("collapsed", step=2)
    assert points(trial) == [(2, {"train/loss": 1.0}, {})]


@pytest.mark.filterwarnings("ignore:Warning. converting a masked element to nan")
def test_a_mean_of_which_every_value_is_masked_is_not_0(trial):
    with Recorder() as rec:
        assert rec.step(0, loss=np.ma.masked_invalid([1.0, math.nan]).mean())
        assert not rec.step(1, loss=np.ma.masked_invalid([math.nan, math.nan]).mean())
    assert points(trial) == [(0, {"train/loss": 1.0}, {}), (1, {}, {"train/loss": "nan"})]


def test_nothing_is_recorded_after_its_end(trial):
    with Recorder() as rec:
        rec.step(0, loss=1.0)
    with pytest.raises(JournalError, match="the recorder is closed"):
        rec.step(1, loss=1.0)
    assert len(points(trial)) == 1


def test_times_never_decrease(trial, monkeypatch):
    clock = iter([5_000_000_000_000_000_000, 4_000_000_000_000_000_000, 6_000_000_000_000_000_000])
    with Recorder() as rec:
        monkeypatch.setattr("fnostab.record.program_journal.time.time_ns", lambda: next(clock))
        for step in range(3):
            rec.step(step, loss=1.0)
        monkeypatch.undo()
    times = [record.time_ms for record in records(trial) if isinstance(record, Point)]
    assert times == [5_000_000_000_000, 5_000_000_000_000, 6_000_000_000_000]


def test_a_full_disk_leaves_whole_lines_and_says_so(trial, monkeypatch):
    write = os.write
    with Recorder() as rec:
        rec.step(0, loss=1.0)
        monkeypatch.setattr("fnostab.record.program_journal.os.write", lambda file, data: write(file, data[:5]))
        with pytest.raises(JournalError, match=f"{os.strerror(errno.ENOSPC)}; free some space"):
            rec.step(1, loss=1.0)
        monkeypatch.setattr("fnostab.record.program_journal.os.write", write)
        rec.step(2, loss=1.0)
    assert [step for step, _, _ in points(trial)] == [0, 2]


def test_a_torn_line_of_a_process_that_died_is_cut_off(trial):
    with open(trial / FILE_NAME, "ab") as file:
        file.write(b'12345678 {"t":1')
    with Recorder() as rec:
        rec.step(0, loss=1.0)
    assert len(points(trial)) == 1


class OutOfMemoryError(RuntimeError):
    """As torch's."""


@pytest.mark.parametrize(
    "error",
    [MemoryError(), MemoryError("no more"), OutOfMemoryError("no more"), RuntimeError("cuFFT: CUFFT_ALLOC_FAILED")],
)
def test_an_end_for_want_of_memory_is_recorded(trial, error):
    with pytest.raises(type(error)), Recorder():
        raise error
    reason = f"{type(error).__name__}: {error}".removesuffix(": ")
    assert events(trial) == [("tags", {"fnostab.outcome": "oom", "fnostab.reason": reason})]


def test_another_error_is_not_swallowed_and_is_named(trial):
    with pytest.raises(ZeroDivisionError), Recorder():
        _ = 1 / 0
    said = {names.OUTCOME: "infra_error", names.REASON: "ZeroDivisionError: division by zero"}
    assert events(trial) == [(names.TAGS_EVENT, said)]


def test_a_sink_of_a_session_takes_what_a_monitor_gives_and_refuses_what_no_reader_would_take(trial):
    sink = session_sink()
    sink.record(np.int64(2), {"a": np.float32(0.5)})
    for refused in (lambda: sink.record(-1, {"b": 1.0}), lambda: sink.event("note", {"loss": float("nan")})):
        with pytest.raises(JournalError):
            refused()
    sink.close()
    assert points(trial) == [(2, {"a": 0.5}, {})]
    assert events(trial) == []
