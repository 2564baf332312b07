"""Ends of processes that wrote no outcome: by its exit status and the end of its stderr."""

import pytest

from fnostab.record.outcomes import Judgement, Outcome, outcome_payload
from fnostab.record.process_end import ProcessEnd, how_it_ended, last_words

TRACEBACK = "Traceback (most recent call last):\n  File 'a.py'\nValueError: no such file\n\ncleaning up\n"
MEMORY = "torch.OutOfMemoryError: CUDA out of memory.\n"


@pytest.mark.parametrize(
    ("end", "outcome", "reason"),
    [
        (ProcessEnd(1, tail=TRACEBACK), Outcome.INFRA_ERROR, "exit status 1: ValueError: no such file"),
        (ProcessEnd(2, tail="usage: a.py\n"), Outcome.INFRA_ERROR, "exit status 2: usage: a.py"),
        (ProcessEnd(3), Outcome.INFRA_ERROR, "exit status 3: it left no message"),
        (ProcessEnd(1, tail=MEMORY), Outcome.OOM, MEMORY.strip()),
        (ProcessEnd(-9), Outcome.KILLED, "ended by SIGKILL (perhaps by the kernel, out of memory)"),
        (ProcessEnd(-11, tail=TRACEBACK), Outcome.KILLED, "ended by SIGSEGV: ValueError: no such file"),
        (ProcessEnd(-15, asked=True), Outcome.KILLED, "asked to end"),
        (ProcessEnd(-9, asked=True), Outcome.KILLED, "asked to end, and ended by SIGKILL"),
        (ProcessEnd(0, asked=True, tail=MEMORY), Outcome.KILLED, f"asked to end: {MEMORY.strip()}"),
    ],
)
def test_exit_status_and_stderr_say_how_it_ended(end, outcome, reason):
    ending = how_it_ended(end)
    assert (ending.outcome, ending.reason, ending.requested) == (outcome, reason, end.asked)


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        ("ModuleNotFoundError: No module named 'fnostab'", "install fnostab for the Python that the command starts"),
        ("RuntimeError: CUDA error: invalid device ordinal", "env CUDA_VISIBLE_DEVICES=0,1"),
        ("ValueError: loss is not finite", "record the value before raising: rec.step(step, loss=loss)"),
        ("OverflowError: (34, 'Numerical result out of range')", "or without one rec.failed('nonfinite', step)"),
        ("AssertionError: this needs two GPUs, found 1", "and `--jobs 1`"),
        ("ModuleNotFoundError: No module named 'fnostab_data'", None),
        ("RuntimeError: the GPU has fallen off the bus", None),
    ],
)
def test_an_error_that_fnostab_has_a_part_in_says_what_to_do(error, hint):
    reason = how_it_ended(ProcessEnd(1, tail=f"Traceback\n{error}\n")).reason
    assert reason.startswith(f"exit status 1: {error}")
    assert hint in reason if hint else reason.endswith(error)


@pytest.mark.parametrize(
    ("tail", "outcome", "more"),
    [
        ("OSError: the disk melted\n\n", Outcome.INFRA_ERROR, ": OSError: the disk melted"),
        (TRACEBACK, Outcome.KILLED, ""),  # a line after it: the error may be of an attempt before
        (f"{MEMORY}epoch 1\n", Outcome.KILLED, ""),
        ("", Outcome.KILLED, ""),
    ],
)
def test_with_an_unknown_exit_status_only_the_last_line_counts(tail, outcome, more):
    ending = how_it_ended(ProcessEnd(None, tail=tail, owner="7@node"))
    assert (ending.outcome, ending.reason) == (outcome, f"its process 7@node ended without recording an outcome{more}")


@pytest.mark.parametrize(
    ("tail", "words"),
    [
        (
            "srun: error: node7: task 0: Exited with exit code 3\n",
            "srun: error: node7: task 0: Exited with exit code 3",
        ),
        ("SystemExit: 3\nbye\n", "SystemExit: 3"),
        ("an Error: of sorts\nbye\n", "bye"),
        ("\n \n", "it left no message"),
    ],
)
def test_the_last_words_are_an_error_if_there_is_one(tail, words):
    assert last_words(tail) == words


def test_the_payload_of_an_outcome_has_all_fields_and_a_bounded_reason():
    judged = Judgement(Outcome.COLLAPSED, 9, 4, (Outcome.COLLAPSED,), ("exploded: needs two validations",))
    assert outcome_payload(judged) == {
        "outcome": "collapsed",
        "failure_step": 9,
        "known_good_step": 4,
        "rules_held": ["collapsed"],
        "not_judged": ["exploded: needs two validations"],
        "reason": None,
    }
    killed = outcome_payload(Judgement(Outcome.KILLED), "x" * 600, requested=True)
    assert (killed["outcome"], len(killed["reason"]), killed["requested"]) == ("killed", 500, True)
    assert outcome_payload(None)["outcome"] is None


def test_a_reason_holds_no_control_characters():
    reason = how_it_ended(ProcessEnd(1, tail="ValueError: \x1b[31mred\x1b[0m\x00 \x1b]0;title\x07 Übel\n")).reason
    assert outcome_payload(None, reason)["reason"] == "exit status 1: ValueError: red ]0;title Übel"
