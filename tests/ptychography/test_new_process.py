"""A function in a new process, called from a user's script that has no guard."""

import subprocess
import sys

import pytest

from fnostab.errors import LaunchError
from fnostab.ptychography.new_process import in_new_process
from fnostab.ptychography.settings import TrialConfig

BESIDE = """
def rate(config, factor):
    print("not the answer")
    return config.training.learning_rate * factor
"""
SCRIPT = """
from fnostab.ptychography.new_process import in_new_process
from fnostab.ptychography.settings import TrialConfig

configs = [TrialConfig.from_dotted({"training.learning_rate": rate}) for rate in (0.25, 0.5)]
print("once:", in_new_process("beside:rate", configs, 2))
"""


def test_a_script_without_a_guard_is_not_run_again_and_its_modules_are_found(tmp_path):
    (tmp_path / "beside.py").write_text(BESIDE)
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "once: [0.5, 1.0]\n"


def test_a_process_that_can_not_answer_is_an_error_with_its_last_words():
    with pytest.raises(LaunchError, match=r"ended with status 1: TypeError: .*not 'TrialConfig'$"):
        in_new_process("builtins:int", [TrialConfig()])
    with pytest.raises(LaunchError, match="ended with status 1: ModuleNotFoundError: No module named 'nowhere'"):
        in_new_process("nowhere:rate", [TrialConfig()])


def test_the_step_of_a_trial_is_measured_there(tiny_settings):
    config = TrialConfig.from_dotted(tiny_settings)
    (seconds,) = in_new_process("fnostab.ptychography.estimates:step_seconds", [config], "cpu")
    assert 0 < seconds < 60
