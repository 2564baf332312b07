"""``fnostab watch`` as a user calls it."""

import os
import pty
import re
import signal
import subprocess
import sys
import time

import pytest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a/b",), "experiment='a/b' is not accepted: give a name, as in `fnostab watch stage_a`"),
        (("absent",), "no experiment 'absent' in sqlite:///"),
        ((), "no study is recorded in sqlite:///"),
        (("--tracking-uri", "http://127.0.0.1:9"), "no tracking server answers at http://127.0.0.1:9"),
        (("--tracking-uri", "sqlite:///absent.db"), "no tracking database at"),
    ],
)
def test_what_can_not_be_watched_is_said_in_one_line(workplace, call, arguments, message):
    status, out, err = call("watch", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


def test_ctrl_c_in_a_terminal_of_60_columns_leaves_at_once_and_the_study_goes_on(workplace, tiny, environment):
    """A real study, and a real terminal, which is narrow and has no colour."""
    command = [sys.executable, "-m", "fnostab"]
    study = subprocess.Popen(
        [
            *command,
            "run",
            "stage_a",
            "--profile=small",
            "--arms=control",
            "--seeds=1",
            *tiny,
            "--set=training.epochs=1000",  # minutes: it is ended below
            "--set=training.stress_test=true",
        ],
        cwd=workplace,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    try:
        _wait_for(lambda: list(workplace.glob("outputs/stage_a/*/control-0/journal.jsonl")), study)
        (journal,) = workplace.glob("outputs/stage_a/*/control-0/journal.jsonl")
        ours, theirs = pty.openpty()
        narrow = environment | {"COLUMNS": "60", "LINES": "24", "NO_COLOR": "1", "TERM": "xterm"}
        watch = subprocess.Popen(
            [*command, "watch"], cwd=workplace, env=narrow, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        text = b""
        while b"control-0" not in text:
            text += os.read(ours, 65536)
        watch.send_signal(signal.SIGINT)
        before = time.monotonic()
        while chunk := _read(ours):
            text += chunk
        assert watch.wait(60) == 0
        assert time.monotonic() - before < 10
        written = journal.stat().st_size
        _wait_for(lambda: journal.stat().st_size > written, study)
    finally:
        study.send_signal(signal.SIGINT)  # it ends its trial
        try:
            study.wait(240)
        finally:
            study.kill()
    shown = text.decode()
    assert "\x1b[3" not in shown.replace("\x1b[3m", "")  # no colour; italics are none
    assert max(len(line.strip("\r")) for line in _without_escapes(shown).split("\n")[1:]) <= 60  # below the first line
    assert shown.replace("\r", "").endswith("stopped watching; the study is still running\nnext: fnostab watch\n")


def _wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _read(terminal):
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that nobody has the other end open any more
        return b""


def _without_escapes(text):
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r\n", "\n").replace("\r", "\n")
