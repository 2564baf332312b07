"""A function in a new process, called from a user's script that has no guard."""

import subprocess
import sys

import pytest

from fnostab.errors import LaunchError
from fnostab.ptychography.new_process import in_new_process

BESIDE = "def root(x):\n    print('not the answer')\n    return x ** 0.5\n"
SCRIPT = """
from beside import root
from fnostab.ptychography.new_process import in_new_process

print("once:", in_new_process(root, [4.0, 9.0]))
"""


def test_a_script_without_a_guard_is_not_run_again_and_its_modules_are_found(tmp_path):
    (tmp_path / "beside.py").write_text(BESIDE)
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "once: [2.0, 3.0]\n"


def test_a_process_that_can_not_answer_is_an_error_with_its_last_words():
    with pytest.raises(LaunchError, match=r"ended with status 1: ValueError: invalid literal .* 'ten'$"):
        in_new_process(int, ["10", "ten"])
    with pytest.raises(LaunchError, match="ended with status 3: it left no message"):
        in_new_process(sys.exit, [3])
