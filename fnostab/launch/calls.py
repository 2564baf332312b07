"""Call functions in other processes, so that this one need not import what they need.

A call is a folder with the function and its arguments. The other process adds its answer: what the function returned,
or the error, which is then raised here.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from fnostab import errors
from fnostab.errors import FnostabError, LaunchError, os_errors_as
from fnostab.record.process_end import ProcessEnd, how_it_ended, last_words
from fnostab.record.stderr_tail import tail_of
from fnostab.startup import imports_that_stay
from fnostab.tasks.registry import load

CALL_FILE, ANSWER_FILE, LOG_FILE = "call.json", "answer.json", "log"

Start = Callable[[Path, IO[bytes]], int]  # process for the call in a folder, with its log: its exit status


def call_with(start: Start, place: str, given: Mapping[str, Any]) -> Any:
    """Call the function ``place`` ("module:name") with keyword arguments in a process that ``start`` runs.

    What it takes and returns must be JSON-ready. What it prints is dropped if it answers.

    Raises:
        FnostabError: the function raised it.
        ModuleNotFoundError: the function needs a module that is not installed.
        LaunchError: the process can't be started, or could not answer; the message names its log.
    """
    no_space = os_errors_as(LaunchError, f"can't start a process that calls {place}", "TMPDIR names another folder")
    with no_space, TemporaryDirectory(prefix="fnostab-", ignore_cleanup_errors=True) as name:
        folder, log = Path(name), Path(name) / LOG_FILE
        (folder / CALL_FILE).write_text(json.dumps({"path": sys.path, "place": place, "given": given}))
        log.touch(mode=0o600)  # it may be kept outside this folder
        with open(log, "ab") as file:
            status = start(folder, file)
        if not (folder / ANSWER_FILE).exists():
            said = tail_of(log)
            how = how_it_ended(ProcessEnd(status)).reason if status < 0 else f"ended with status {status}"
            kept = f"; see its log {log.rename(folder.with_suffix('.log'))}" if said else ""
            raise LaunchError(f"a process that calls {place} {how}: {last_words(said)}{kept}")
        answer = json.loads((folder / ANSWER_FILE).read_text())
    if "missing" in answer:
        raise ModuleNotFoundError(answer["message"], name=answer["missing"])
    if "error" in answer:
        raise getattr(errors, answer["error"])(answer["message"])
    return answer["value"]


def new_process(folder: Path, log: IO[bytes]) -> int:
    """Answer the call in a new process; this process's main module, maybe a script without a guard, is not imported."""
    return subprocess.run(
        [sys.executable, "-m", __name__, folder], stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
    ).returncode


def answer_call(folder: Path) -> None:
    """Call the function of the folder in this process, and write what it returned or why it failed."""
    call = json.loads((folder / CALL_FILE).read_text())
    sys.path[:] = call["path"]
    answer: dict[str, Any]
    try:
        with imports_that_stay():
            function = load(call["place"])
        answer = {"value": function(**call["given"])}
    except FnostabError as error:
        ours = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
        answer = {"error": ours.__name__, "message": str(error)}
    except ModuleNotFoundError as error:
        answer = {"missing": error.name, "message": str(error)}
    (folder / ANSWER_FILE).write_text(json.dumps(answer))


if __name__ == "__main__":
    answer_call(Path(sys.argv[1]))
