"""Help answers at once, and is there for every command."""

import subprocess
import sys

import pytest

from fnostab.cli import COMMANDS

HEAVY = {"torch", "mlflow", "lightning", "pydantic", "rich", "matplotlib", "numpy", "scipy", "yaml"}


def test_help_imports_nothing_heavy(environment):
    """So that it takes a tenth of a second. A limit on the time itself would fail on a busy machine."""
    code = (
        "import sys; from fnostab.cli import main\n"
        "try: main(['--help'])\n"
        f"finally: print(sorted({HEAVY!r} & sys.modules.keys()))"
    )
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "[]"
    for name, meaning in COMMANDS.items():
        assert f"{name} " in answer.stdout
        assert meaning[:30] in answer.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_says_what_it_does(call, name):
    status, out, err = call(name, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"Usage: fnostab {name}")


def test_without_a_command_there_is_help(call):
    status, out, err = call()
    assert (status, err) == (0, "")
    assert "Commands:" in out


def test_the_version(call):
    import fnostab

    assert call("--version") == (0, f"fnostab, version {fnostab.__version__}\n", "")
