"""Call a function with configurations of trials in a new process, so that this one takes no GPU memory."""

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

from fnostab.errors import LaunchError
from fnostab.ptychography.settings import TrialConfig
from fnostab.record.process_end import last_words
from fnostab.record.settings import flatten
from fnostab.tasks.registry import load

CHILD = f"""
import json, sys
given = json.load(sys.stdin)
sys.path[:] = given.pop("path")
from {__name__} import answer
answer(**given)
"""


def in_new_process(place: str, configs: Sequence[TrialConfig], *more: Any) -> list[Any]:
    """Call the function ``place`` ("module:name") with each configuration and ``more``, one after the other.

    What it takes and returns must be JSON-ready. The new process does not import this one's main module, as
    `multiprocessing` would: that may be a user's script without a guard, which would start the study again.

    Raises:
        LaunchError: the process could not answer; the message has its last words.
    """
    given = {"path": sys.path, "place": place, "configs": list(map(flatten, configs)), "more": more}
    ended = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps(given),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if ended.returncode != 0:
        raise LaunchError(
            f"a new process for a training step ended with status {ended.returncode}: {last_words(ended.stderr)}"
        )
    answers: list[Any] = json.loads(ended.stdout.splitlines()[-1])
    return answers


def answer(place: str, configs: Sequence[dict[str, Any]], more: Sequence[Any]) -> None:
    """Call the function in this process, and print what it returned as one line of JSON."""
    with redirect_stdout(sys.stderr):
        function = load(place)
        answers = [function(TrialConfig.from_dotted(settings), *more) for settings in configs]
    print(json.dumps(answers))
