"""A function in another process: a fork, or a new one for a user's script that has no guard."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from fnostab.errors import ConfigError, LaunchError
from fnostab.launch.calls import call_with
from fnostab.launch.fork_server import ForkServer
from fnostab.launch.local import LocalLauncher
from fnostab.record.trial import Resources

BESIDE = """
import os, subprocess, time
def sent(values, factor):
    print("not the answer")
    return [value * factor for value in values] + [os.getpid()]
def end(status):
    os._exit(status)
def own():
    from fnostab.errors import ConfigError
    class OwnError(ConfigError): pass
    raise OwnError("mine")
def interrupted():
    raise KeyboardInterrupt
def start_a_child(flag):
    child = subprocess.Popen(["sleep", "600"])
    with open(flag + ".making", "w") as file:
        print(child.pid, file=file)
    os.rename(flag + ".making", flag)
    child.wait()
def lose_parent(flag):
    if not os.path.exists(flag):
        with open(flag, "w") as file:
            print(os.getpid(), file=file)
        os.kill(os.getppid(), 9)
        time.sleep(60)
    return os.getpid()
"""
SCRIPT = """
from fnostab.launch.calls import call_with, new_process

print("once:", call_with(new_process, "beside:sent", {"values": [0.25, 0.5], "factor": 2})[:2])
"""
FORKS = Resources(preloads=("json",))


@pytest.fixture(params=["fork", "new process"])
def call(request):
    """A function that calls another in a fork, or in a new process."""
    if request.param == "fork" and sys.platform != "linux":
        pytest.skip("forks are made under Linux only")
    launcher = LocalLauncher(1, gpu=False, forks=request.param == "fork")
    return lambda place, **given: launcher.call(place, given, FORKS)


def test_a_script_without_a_guard_is_not_run_again_and_its_modules_are_found(tmp_path):
    (tmp_path / "beside.py").write_text(BESIDE)
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "once: [0.5, 1.0]\n"


def test_what_the_function_returns_comes_back(call, tmp_path, monkeypatch):
    (tmp_path / "beside.py").write_text(BESIDE)
    monkeypatch.syspath_prepend(tmp_path)
    first, second = (call("beside:sent", values=[1, 2], factor=3) for _ in range(2))
    assert first[:2] == second[:2] == [3, 6]
    assert first[2] != second[2]  # each has a process of its own


def test_its_own_errors_are_raised_here(call):
    with pytest.raises(ConfigError, match=r"^task='nobody' is not known; accepted: ptychography, command$"):
        call("fnostab.tasks.registry:make_task", name="nobody")
    with pytest.raises(ModuleNotFoundError) as missing:
        call("nowhere:function")
    assert missing.value.name == "nowhere"


def test_an_error_derived_from_one_of_ours_is_raised_as_ours(call, tmp_path, monkeypatch):
    (tmp_path / "beside.py").write_text(BESIDE)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"^mine$"):
        call("beside:own")


def test_a_process_that_can_not_answer_is_an_error_with_its_last_words_and_its_log(call, tmp_path, monkeypatch):
    (tmp_path / "beside.py").write_text(BESIDE)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with pytest.raises(LaunchError, match=r"beside:sent ended with status 1: TypeError: .*'factor'; see its log "):
        call("beside:sent", values=[1])
    with pytest.raises(LaunchError, match=r"interrupted ended .*: KeyboardInterrupt; see its log ") as said:
        call("beside:interrupted")
    assert "beside.py" in Path(str(said.value).rpartition("see its log ")[2]).read_text()
    with pytest.raises(LaunchError, match=r"calls beside:end ended with status 7: it left no message$"):
        call("beside:end", status=7)
    assert {path.suffix for path in (tmp_path / "tmp").iterdir()} == {".log"}


@pytest.mark.skipif(sys.platform != "linux", reason="forks are made under Linux only")
def test_a_fork_is_killed_with_what_it_started(tmp_path, monkeypatch):
    (tmp_path / "beside.py").write_text(BESIDE)
    monkeypatch.syspath_prepend(tmp_path)
    flag, children = tmp_path / "flag", []

    def start_and_kill(folder, log):
        fork = ForkServer(os.environ, FORKS.preloads).call(folder, Path(log.name))
        while not flag.exists():
            assert fork.poll() is None
            time.sleep(0.01)
        children.append(psutil.Process(int(flag.read_text())))
        fork.kill()
        return fork.wait()

    with pytest.raises(LaunchError, match="calls beside:start_a_child ended by SIGKILL"):
        call_with(start_and_kill, "beside:start_a_child", {"flag": str(flag)})
    assert not psutil.wait_procs(children, timeout=60)[1]


@pytest.mark.skipif(sys.platform != "linux", reason="forks are made under Linux only")
def test_where_the_server_is_killed_its_call_ends_and_a_new_process_answers(tmp_path, monkeypatch):
    (tmp_path / "beside.py").write_text(BESIDE)
    monkeypatch.syspath_prepend(tmp_path)
    flag = tmp_path / "flag"
    fork = LocalLauncher(1, gpu=False).call("beside:lose_parent", {"flag": str(flag)}, FORKS)
    assert fork != int(flag.read_text())
    stat = Path(f"/proc/{flag.read_text().strip()}/stat")
    assert not stat.exists() or stat.read_text().split()[2] == "Z"  # ended, if nobody has asked for its status


def test_without_a_temporary_folder_it_is_said_how_to_name_one(call, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with pytest.raises(LaunchError, match=r"calls os:getcwd: No such file or directory; TMPDIR names another folder$"):
        call("os:getcwd")
    LocalLauncher(1, gpu=False).import_ahead(FORKS)  # leaves the message to the call


def test_where_a_server_can_not_fork_a_new_process_answers(tmp_path, monkeypatch):
    (tmp_path / "threaded.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    launcher = LocalLauncher(1, gpu=False)
    threaded = Resources(preloads=("threaded",))
    assert launcher.call("os:getcwd", {}, threaded)
    assert b"imported modules run 2 threads" in launcher._server.output()
    assert not launcher._forks


def test_a_launcher_that_is_not_used_ends_what_it_started_to_import(tmp_path, monkeypatch):
    (tmp_path / "endless.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    launcher = LocalLauncher(1, gpu=False)
    launcher.import_ahead(Resources(preloads=("endless",)))
    process = launcher._server._process
    del launcher
    assert process.returncode is not None
