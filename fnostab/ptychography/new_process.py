"""Call a function in a new process, so that this one takes no GPU memory."""

import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from fnostab.errors import LaunchError
from fnostab.record.process_end import last_words

Argument = TypeVar("Argument")
Answer = TypeVar("Answer")
# What the function prints goes to stderr, so that only the answer is on stdout.
CHILD = """
import os, pickle, sys
answer = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
sys.path[:] = pickle.load(sys.stdin.buffer)
function, arguments = pickle.load(sys.stdin.buffer)
pickle.dump([function(each) for each in arguments], answer)
answer.close()
"""


def in_new_process(function: Callable[[Argument], Answer], arguments: Sequence[Argument]) -> list[Answer]:
    """Call a picklable function of an importable module with each of ``arguments``, one after the other.

    The new process does not import this one's main module, as `multiprocessing` would: that may be a user's script
    without a guard, which would start the study again.

    Raises:
        LaunchError: the process could not answer; the message has its last words.
    """
    given = pickle.dumps(sys.path) + pickle.dumps((function, list(arguments)))
    ended = subprocess.run([sys.executable, "-c", CHILD], input=given, capture_output=True, check=False)
    if ended.returncode != 0:
        said = last_words(ended.stderr.decode(errors="replace"))
        raise LaunchError(f"a new process for a training step ended with status {ended.returncode}: {said}")
    answers: list[Answer] = pickle.loads(ended.stdout)
    return answers
