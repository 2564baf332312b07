"""``fnostab run --notify``: messages to a real HTTP server, and secrets that stay where they are."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fnostab.launch import run as run_module
from fnostab.show import notifying
from fnostab.show.notifying import VARIABLE, Notifier

pytest.importorskip("apprise", reason="needs the extra notify")
ROOT = Path(__file__).parent.parent.parent
SECRET = "hunter2-of-the-group"
BAD, GOOD = "collapsed", "converged"


@pytest.fixture
def mailbox():
    """A server that keeps what is posted to it, and answers with its ``status``."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            server.messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(server.status)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.messages, server.status = [], 200
    server.address = f"json://group:{SECRET}@127.0.0.1:{server.server_port}/{SECRET}?+X-Key={SECRET}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(workplace, script, tiny, call, monkeypatch):
    monkeypatch.setattr(run_module, "POLL_S", 0.02)

    def run(outcomes, *arguments):
        script({f"{arm}-{seed}": [what] * 3 for arm, kinds in outcomes.items() for seed, what in enumerate(kinds)})
        command = ("run", "stage_a", "--profile", "small", *tiny, "--jobs", "2", "--arms", ",".join(outcomes))
        status, out, err = call(*command, *arguments)
        assert SECRET not in out + err
        assert not [p for p in workplace.rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()]
        return status, out, err

    return run


def test_the_answer_is_told_with_the_link_when_a_study_ends(run, mailbox):
    outcomes = {"control": [BAD] * 3, "arch_fix": [GOOD] * 3}
    status, out, err = run(outcomes, "--seeds", "3", "--notify", mailbox.address, "--notify", mailbox.address)
    assert (status, err) == (0, "")
    first, second = mailbox.messages
    assert first == second
    assert first["title"] == "fnostab: stage_a has ended"
    said, sentence, charts = first["message"].splitlines()
    assert said.startswith(("GOLD", "leaning", "INCONCLUSIVE"))
    assert sentence.startswith("arch_fix")
    assert "0 of 3 failed, 3 of 3 of control" in sentence
    assert charts in out
    assert "viewStateShareKey=fnostab-shootout" in charts


def test_a_study_that_does_not_go_on_is_told_of(run, mailbox):
    status, _, _ = run({"control": ["exit 3", GOOD]}, "--seeds", "2", "--notify", mailbox.address)
    assert status == 2
    (message,) = mailbox.messages
    assert message["title"] == "fnostab: stage_a has stopped"
    assert "stage_a stopped: 1 of 2 trials ended without a result, such as control-0: infra_error" in message["message"]
    assert "\nINCONCLUSIVE: " in message["message"]  # what is known all the same
    assert "charts: http" in message["message"]


def test_a_look_that_decides_is_told_of(run, mailbox):
    outcomes = {"control": [BAD] * 3, "arch_fix": [GOOD] * 3}
    assert run(outcomes, "--sequential", "3,6", "--notify", mailbox.address)[0] == 0
    look, end = mailbox.messages
    assert look["title"] == "fnostab: stage_a, look 1 of 2 (3 seeds)"
    assert look["message"].startswith("arch_fix: 0 of 3 failed, 3 of 3 of control")
    assert end["title"] == "fnostab: stage_a has ended"


def test_a_message_that_is_not_taken_changes_nothing_but_a_warning(run, mailbox, caplog):
    mailbox.status = 500
    status, out, _ = run({"control": [GOOD]}, "--seeds", "1", "--notify", mailbox.address)
    assert status == 0
    assert len(mailbox.messages) == 1
    (line,) = (message for message in caplog.messages if message.startswith("--notify"))  # the store may be slow
    assert SECRET not in caplog.text
    assert line.startswith("--notify: not every address took the message; the study is not affected")
    assert "\nnext:" in out


def test_an_address_that_does_not_answer_holds_nobody_up(monkeypatch, caplog):
    monkeypatch.setattr(notifying, "LIMIT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        notifier = Notifier([f"json://127.0.0.1:{silent.getsockname()[1]}?rto=600"])
        begun = time.monotonic()
        notifier.send("title", "body")
        assert time.monotonic() - begun < 2  # apprise would wait for 600 s
    assert "--notify: not every address took the message" in caplog.text


@pytest.mark.parametrize(
    "address",
    [f"jsonn://{SECRET}@127.0.0.1", f"slack://{SECRET}", SECRET, f"https://127.0.0.1/{SECRET}", ""],
    ids=["unknown", "incomplete", "no scheme", "a page", "a variable that is not set"],
)
def test_a_wrong_address_is_refused_before_anything_is_trained(run, workplace, mailbox, address):
    status, out, err = run({"control": [GOOD]}, "--seeds", "1", "--notify", mailbox.address, "--notify", address)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("error: --notify: apprise can't read address 2; accepted: mailto://")
    assert not (workplace / "outputs").exists()
    assert mailbox.messages == []


def test_several_addresses_in_one_text_are_several(run, mailbox):
    own = mailbox.address.replace("?", "/own?")
    assert run({"control": [GOOD]}, "--seeds", "1", "--notify", f"{mailbox.address}, {own},{own} ")[0] == 0
    assert len(mailbox.messages) == 3


PROGRAM = """import os, sys
from fnostab.recorder import Recorder
sys.exit(3) if "FNOSTAB_NOTIFY" in os.environ or sys.argv[1] != "0" else None
with Recorder() as rec:
    rec.step(0, loss=1.0)
    rec.validation(0, loss=1.0)
"""


@pytest.fixture
def program(workplace):
    (workplace / "program.py").write_text(PROGRAM)
    study = workplace / "study.yaml"
    lines = (
        "name: zero",
        "description: only seed 0 works",
        f"command: {sys.executable} program.py {{seed}}",
        "control: control",
        "arms: {control: {}}",
    )
    study.write_text("\n".join(lines))
    return str(study)


def test_one_trial_of_a_program_does_not_get_the_address_either(program, mailbox, call, monkeypatch):
    monkeypatch.setenv(VARIABLE, mailbox.address)
    status, _, err = call("train", program, "--seed", "0")
    assert (status, mailbox.messages) == (0, []), err


def test_a_study_of_a_file_is_told_of_by_its_name(program, mailbox, call):
    assert call("run", program, "--seeds", "2", "--attempts", "1", "--notify", mailbox.address)[0] == 2
    (message,) = mailbox.messages
    assert message["title"] == "fnostab: zero has stopped"
    assert message["message"].startswith("zero stopped: 1 of 2 trials")


def test_a_closed_terminal_is_told_of(mailbox):
    code = (
        "import os, signal; from fnostab.show.notifying import Notifier\n"
        f"with Notifier(['{mailbox.address}']).of_failures(lambda: 'mine', str): os.kill(os.getpid(), signal.SIGHUP)"
    )
    ended = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=60)
    assert ended.returncode == -signal.SIGHUP
    assert mailbox.messages[0]["message"].startswith(
        "mine lost its terminal: the same `fnostab run` command resumes it"
    )


def test_the_environment_may_hold_the_address_and_trials_do_not_get_it(run, mailbox, monkeypatch):
    monkeypatch.setenv(VARIABLE, mailbox.address)
    assert run({"control": [GOOD]}, "--seeds", "1")[0] == 0
    assert len(mailbox.messages) == 1
    assert VARIABLE not in os.environ


def test_a_dry_run_that_is_refused_notifies_nobody(run, mailbox):
    seeds = ("--seeds", "2", "--dry-run", "--notify", mailbox.address)
    assert run({"control": [GOOD]}, *seeds, "--from", "nowhere")[0] == 2
    assert mailbox.messages == []


def _left_to_slurm():
    error = KeyboardInterrupt()
    error.add_note("3 jobs continue without this process")
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (_left_to_slurm(), "mine was interrupted: 3 jobs continue without this process"),
        (KeyboardInterrupt(), "mine was interrupted: the same `fnostab run` command resumes it"),
        (ZeroDivisionError("by 0"), "mine stopped: ZeroDivisionError: by 0"),
    ],
)
def test_whatever_ends_a_study_is_told_and_goes_on(mailbox, error, said):
    notifier = Notifier([mailbox.address])
    with pytest.raises(type(error)), notifier.of_failures(lambda: "mine", lambda: "charts: there"):
        raise error
    assert mailbox.messages[0]["message"].splitlines() == [said, "charts: there"]


def test_mlflow_would_record_a_parameter_so_the_address_is_refused_there(tmp_path, environment):
    command = [sys.executable, "-m", "entrypoints.shootout", "stage_a", "--notify", f"json://{SECRET}"]
    more = environment | {"MLFLOW_RUN_ID": "cafe", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=tmp_path, env=more, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "set FNOSTAB_NOTIFY=URL in the environment" in ended.stderr
    assert "mlflow runs delete --run-id cafe" in ended.stderr
    assert SECRET not in ended.stderr
