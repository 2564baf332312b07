"""Texts of others reach a terminal as text; output that can't be written is one line, not a traceback."""

import io
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from fnostab.cli.printing import echo
from fnostab.record.table_file import read_table
from fnostab.report.decide_table import decide
from fnostab.show.console import Console
from fnostab.show.visible import visible

ROOT = Path(__file__).parents[2]
HOSTILE = "x\x1b[2J\x1b]0;title\x07\x9b5m\r\u202e"
CARRIED_OUT = re.compile("[\x07\x1b\x9b\r\u202e]")


def test_what_a_terminal_would_carry_out_is_written_as_an_escape():
    assert visible(HOSTILE) == r"x\x1b[2J\x1b]0;title\x07\x9b5m\r\u202e"
    assert visible("half \ud800") == r"half \ud800"
    assert visible("Grüße,\t量子\n") == "Grüße,\t量子\n"


def test_every_way_to_print(capsys):
    echo(HOSTILE)
    echo(HOSTILE, err=True)
    out = io.StringIO()
    console = Console(file=out, width=100)
    table = Table(HOSTILE)
    table.add_row(HOSTILE)
    table.add_row(Text(HOSTILE))
    console.print(HOSTILE, markup=False)
    console.print(table, Text(HOSTILE))
    printed = [*capsys.readouterr(), out.getvalue()]
    assert not [text for text in printed if CARRIED_OUT.search(text)]
    assert out.getvalue().count(r"\x1b[2J") == 5


def test_no_word_is_cut_where_escapes_make_a_line_longer():
    console = Console(file=(out := io.StringIO()), width=30)
    console.print(Text("a\x00 and b\x00 are arms of a table"))
    assert "".join(out.getvalue().split()) == r"a\x00andb\x00arearmsofatable"


def test_styles_of_our_own_still_reach_a_terminal():
    console = Console(file=(out := io.StringIO()), force_terminal=True, color_system="standard")
    console.print(Text("kept", "bold"))
    assert out.getvalue() == "\x1b[1mkept\x1b[0m\n"


@pytest.mark.parametrize("command", [("decide", "--table"), ("decide", "--json", "--table")])
def test_an_arm_of_somebodys_table(call, workplace, command):
    arms = ("control", f'"{HOSTILE.replace(chr(13), "")}"')
    rows = [f"a,{arm},{seed},converged,0.{seed + 1},,9" for arm in arms for seed in range(4)]
    header = "stage,arm,seed,outcome,val_loss,failure_step,last_step"
    Path("theirs.csv").write_text("\n".join([header, *rows]) + "\n")
    status, out, err = call(*command, "theirs.csv")
    assert status == 0, err
    assert "2J" in out
    assert not CARRIED_OUT.search(out + err)


def test_an_arm_whose_name_looks_like_markup_is_printed_as_it_is(call, workplace):
    arms = ("control", "mlp[relu]", "[/]", "[bold]x[/bold]", "a:100:b")
    rows = [f"a,{arm},{seed},converged,0.{seed + 1},,9" for arm in arms for seed in range(4)]
    Path("theirs.csv").write_text("\n".join(["stage,arm,seed,outcome,val_loss,failure_step,last_step", *rows]) + "\n")
    status, out, err = call("decide", "--table", "theirs.csv", "--evidence")
    assert (status, err) == (0, "")
    for arm in arms:
        assert re.search(rf"^{re.escape(arm)} +0/4 ", out, re.MULTILINE), arm
    assert "\n[/]  " in repr(decide(read_table("theirs.csv")))


@pytest.mark.parametrize("of_runs", [True, False])
def test_a_name_of_two_lines_is_shown_in_one(call, workplace, monkeypatch, of_runs):
    monkeypatch.setenv("COLUMNS", "300")
    rows = [
        f"a,{arm},{seed},converged,0.{seed + 1},,9"
        for arm in ("base" if of_runs else "control", '"x\nerror: y"')
        for seed in range(4)
    ]
    header = "stage,arm,seed,outcome,val_loss,failure_step,last_step"
    Path("theirs.csv").write_text("\n".join([header.replace("seed", '"seed\nerror: y"') if of_runs else header, *rows]))
    columns = "arm: columns.arm\nmetric: columns.val_loss\nseed: "
    Path("runs.yaml").write_text(f'table: theirs.csv\ncontrol: base\n{columns}"columns.seed\\nerror: y"\n')
    Path("wrong.yaml").write_text(f"table: theirs.csv\ncontrol: base\n{columns}columns.absent\n")
    asked = ("--runs", "runs.yaml") if of_runs else ("--table", "theirs.csv")
    status, out, err = call("decide", *asked)
    assert status == 0, err
    assert "x error: y" in out
    assert not re.search("^error: y", out + err, re.MULTILINE)
    if of_runs:
        status, _, err = call("decide", "--runs", "wrong.yaml")
        assert (status, "columns.seed error: y" in err) == (2, True)


def test_an_error_that_quotes_a_file(call, workplace):
    Path("theirs.csv").write_text(f"stage,arm\x1b[2J{'x' * 10}\n")
    status, _, err = call("decide", "--table", "theirs\x1b[2J.csv")
    assert status == 2
    assert "\x1b" not in err


def test_warnings_of_a_log(call):
    call("--version")
    assert not CARRIED_OUT.search(logging.lastResort.format(logging.LogRecord("x", 30, "", 0, "%s", (HOSTILE,), None)))


def test_commands_print_in_these_ways_only():
    for path in [*ROOT.glob("fnostab/cli/*.py"), *ROOT.glob("fnostab/ptychography/cli/*.py")]:
        if path.name != "printing.py":
            assert "click.echo(" not in path.read_text(), path
        if re.search(r"(?<!\w)Console\((?!RichConsole)", path.read_text()):
            assert "from fnostab.show.console import Console" in path.read_text(), path


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_into_a_file_on_a_full_disk():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fnostab", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert done.stderr.endswith("No space left on device; free some space, then run the command again\n")
