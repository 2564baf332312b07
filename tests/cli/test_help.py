"""Help answers at once, and is there for every command."""

import ast
import subprocess
import sys

import pytest

from fnostab.cli import COMMANDS

HEAVY = {"torch", "mlflow", "lightning", "pydantic", "rich", "matplotlib", "numpy", "scipy", "yaml"}
SLOW = HEAVY - {"pydantic", "rich", "yaml"}  # a few hundredths of a second each
READING = "report", "export", "watch", "ui", "decide"


@pytest.fixture
def imported(environment, tmp_path):
    """Which of these modules a command line has imported at its end, and what it printed.

    A limit on its time would fail on a busy machine.
    """

    def run(arguments, modules):
        code = (
            "import sys; from fnostab.cli import main\n"
            f"try: main({list(arguments)!r})\n"
            f"finally: print(sorted({modules!r} & sys.modules.keys()))"
        )
        command = [sys.executable, "-c", code]
        answer = subprocess.run(command, cwd=tmp_path, env=environment, text=True, stdout=-1, stderr=subprocess.STDOUT)
        *printed, last = answer.stdout.splitlines()
        return ast.literal_eval(last), "\n".join(printed)

    return run


def test_help_imports_nothing_heavy(imported):
    """So that it takes a tenth of a second."""
    modules, printed = imported(["--help"], HEAVY)
    assert modules == []
    for name, meaning in COMMANDS.items():
        assert f"{name} " in printed
        assert meaning[:30] in printed
    assert imported(["--version"], HEAVY)[0] == []


@pytest.mark.parametrize("name", READING)
def test_the_help_of_a_command_that_reads_imports_nothing_slow(imported, name):
    assert imported([name, "--help"], SLOW)[0] == []


def test_judging_a_table_imports_statistics_and_nothing_else_that_is_slow(imported, tmp_path):
    rows = ["stage,arm,seed,outcome,val_loss,failure_step,last_step"]
    rows += [f"a,{arm},{seed},converged,0.01,,599" for arm in ("control", "arch_fix", "opt_fix") for seed in range(4)]
    (tmp_path / "trials.csv").write_text("\n".join(rows))
    modules, printed = imported(["decide", "--table", "trials.csv"], SLOW | {"pandas", "sqlalchemy", "jinja2"})
    assert "INCONCLUSIVE" in printed
    assert modules == ["numpy", "scipy"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "stage_a", "--arms", "contrl"], "has no arm 'contrl'"),
        (["run", "stage_a", "--sequential", "2,4", "--arms", "control,arch_fx"], "has no arm 'arch_fx'"),
        (["run", "stage_a", "--sedes", "3"], "did you mean --seeds?"),
        (["run", "stage_a", "--seed", "3"], "did you mean --seeds?"),
        (["train", "stage_a", "--arm", "contrl"], "did you mean 'control'?"),
        (["activations", "--arms", "contrl"], "did you mean 'control'?"),
        (["estimate", "stage_a", "--arms", "contrl"], "did you mean 'control'?"),
        (["replay"], "no trial that can be replayed is under"),
    ],
)
def test_what_is_misspelled_is_refused_before_torch_is_imported(imported, arguments, said):
    modules, printed = imported(arguments, {"torch", "lightning", "matplotlib"})
    assert modules == []
    assert said in printed


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_says_what_it_does(call, name):
    status, out, err = call(name, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"Usage: fnostab {name}")
    assert out.splitlines()[-1].startswith(f"  Example: fnostab {name}")


def test_without_a_command_there_is_help(call):
    status, out, err = call()
    assert (status, err) == (0, "")
    assert "Commands:" in out


def test_the_version(call):
    import fnostab

    assert call("--version") == (0, f"fnostab, version {fnostab.__version__}\n", "")
