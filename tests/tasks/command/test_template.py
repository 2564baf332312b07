"""A command is split into words once: no value adds a word or a command."""

import pytest

from fnostab.errors import ConfigError
from fnostab.tasks.command.template import parse


def filled(command, **values):
    return parse(command).fill({"seed": 0, **values})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (0.001, "0.001"),
        (1e-05, "1e-05"),
        (3, "3"),
        ("a b", "a b"),
        ("; rm -rf x", "; rm -rf x"),
        ("$HOME `id` 'q\" \\", "$HOME `id` 'q\" \\"),
        ("{seed}", "{seed}"),
        ("", ""),
    ],
)
def test_a_value_is_one_word_whatever_it_contains(value, text):
    assert filled("run --x {x} {seed}", x=value) == ("run", "--x", text, "0")
    assert filled("run --x={x} {seed}", x=value) == ("run", f"--x={text}", "0")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (True, ("--norm",)),
        (False, ()),
        (None, ()),
        (["a", 2, 0.5], ("--norm", "a", "2", "0.5")),
        ([], ("--norm",)),
        ("layer norm", ("--norm", "layer norm")),
        (0, ("--norm", "0")),
    ],
)
def test_an_option_appears_as_its_value_says(value, words):
    assert filled("run {--norm} {seed}", norm=value) == ("run", *words, "0")


@pytest.mark.parametrize(("value", "said"), [(None, "null"), ([1, 2], r"\[1, 2\]")])
def test_a_plain_placeholder_takes_neither_null_nor_lists(value, said):
    with pytest.raises(ConfigError, match=rf"^command: \{{lr\}} .* can't stand for {said}: write \{{--lr\}} alone"):
        parse("run {lr} {seed}").fill({"seed": 1, "lr": value})


def test_doubled_braces_are_braces():
    assert filled("run '{{\"a\": {x}}}' {seed}", x=1) == ("run", '{"a": 1}', "0")


@pytest.mark.parametrize(
    "command",
    [
        "a {seed} && b",
        "a {seed} || b",
        "a {seed} | tee log",
        "a {seed} ; b",
        "a {seed}; b",
        "a {seed} > log",
        "a {seed} 2>log",
        "a {seed} < in",
        "a {seed} &",
        "a $X {seed}",
        'a "$X" {seed}',
        "a ${X} {seed}",
        "a $(b) {seed}",
        "a `b` {seed}",
        "X=1 a {seed}",
    ],
)
def test_what_needs_a_shell_is_refused_with_the_way(command):
    with pytest.raises(ConfigError, match=r"needs a shell.*bash -c"):
        parse(command)


@pytest.mark.parametrize(
    "command",
    ["a '|' {seed}", "a 'x > y' \"a & b\" {seed}", "a '$X' \\$X {seed}", "a b=1 {seed}", "a ' ' b\\ c {seed}"],
)
def test_what_is_quoted_is_text(command):
    assert parse(command).words


def test_a_shell_of_the_users_own_takes_what_is_quoted_but_no_value_that_it_would_read():
    command = parse("bash -c 'ulimit -n 100 && exec python t.py --lr {lr} > $LOG' {seed}")
    assert command.fill({"seed": 1, "lr": 0.1})[2] == "ulimit -n 100 && exec python t.py --lr 0.1 > $LOG"
    with pytest.raises(ConfigError, match=r"lr='; rm -rf x' would be read by the shell"):
        command.fill({"seed": 1, "lr": "; rm -rf x"})


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("a 'b {seed}", "no closing quotation"),
        ("  ", "got nothing"),
        ("a \\\n  --lr 1 {seed}\n", "leave out a backslash at the end of a line"),  # a block of YAML
        ("a \\ --lr 1 {seed}", "leave out a backslash at the end of a line"),  # lines that YAML joined
        ("a", r"\{seed\} is missing"),
        ("a {--norm}x {seed}", "a word of its own"),
        ("a '{x y}' {seed}", "not a placeholder"),
        ("a {} {seed}", "not a placeholder"),
        ("a {x!r} {seed}", "not a placeholder"),
        ("a {x {seed}", "single brace"),
    ],
)
def test_a_template_that_is_none_is_refused_in_one_line(command, message):
    with pytest.raises(ConfigError, match=message) as error:
        parse(command, lambda name: "study.yaml, line 2: ")
    assert str(error.value).startswith("study.yaml, line 2: ")
    assert "\n" not in str(error.value)


def test_placeholders_and_settings_belong_together():
    template = parse("a {lr} {--norm} --log {directory} {arm} {seed}")
    template.check(["lr", "norm"])
    assert template.names == ("lr", "norm")
    with pytest.raises(ConfigError, match=r"command at line 1: \{norm\} is not a setting .*'norms'"):
        template.check(["lr", "norms"], lambda name: f"{name} at line 1: ")
    with pytest.raises(ConfigError, match="wd at line 1: setting wd has no placeholder"):
        template.check(["lr", "norm", "wd"], lambda name: f"{name} at line 1: ")
