"""Reading of values, from a user's hand or from `mlflow run -P`."""

import click
import pytest

from fnostab.cli.options import parse_names, parse_seeds, parse_settings, positive
from fnostab.cli.run_options import split_words
from fnostab.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seeds"),
    [(None, []), ("", []), ("3", range(3)), ("0,3,5", [0, 3, 5]), ("7,", [7]), (" 1 , 2 ", [1, 2])],
)
def test_seeds_are_a_count_or_a_list(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["0", "-1", "banana", "1.5", "1e3", "1,1", "2,-1", ",", "1,x", "9" * 30, "²"])
def test_other_seeds_are_refused(text):
    with pytest.raises(ConfigError, match=r"seeds=.* is not accepted: give a count from 1"):
        parse_seeds(text)


@pytest.mark.parametrize(("text", "number"), [(None, None), ("", None), ("1", 1), ("20", 20)])
def test_an_empty_parameter_of_mlproject_is_none(text, number):
    assert positive("jobs", text) == number


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.5", " 3"])
def test_other_numbers_are_refused(text):
    with pytest.raises(ConfigError, match=f"jobs='{text}' is not accepted: give a whole number from 1"):
        positive("jobs", text)


def test_arms_are_named_once_each():
    assert parse_names("control, arch_fix,control,") == ["control", "arch_fix"]
    assert parse_names("") == parse_names(None) == []


def test_settings_are_read_as_in_yaml():
    given = ("a.b=3", "a.c=null", "a.d=true", "a.e=0.01", "a.f=text=with=equals", "a.g=[x, y]", "a.h=''")
    assert parse_settings(given) == {
        "a.b": 3,
        "a.c": None,
        "a.d": True,
        "a.e": 0.01,
        "a.f": "text=with=equals",
        "a.g": ["x", "y"],
        "a.h": "",
    }


@pytest.mark.parametrize("assignment", ["a.b", "=3", "a.b=[", "a.b=@", "a.b=", "a.b= "])
def test_other_settings_are_refused(assignment):
    with pytest.raises(ConfigError, match=r"a\.b|=3"):
        parse_settings((assignment,))


def test_what_mlproject_does_not_declare_becomes_a_setting():
    assert split_words(["--model.fno_blocks", "8", "--a.b=c", "--training.momentum", "-0.5"]) == (
        [],
        ["model.fno_blocks=8", "a.b=c", "training.momentum=-0.5"],
    )
    assert split_words(["--clip", "0.1", "--set.epochs", "3"])[1] == ["clip=0.1", "epochs=3"]  # of a command: no dots
    assert split_words(["clip", "--lr", "0.1", "x"]) == (["clip", "x"], ["lr=0.1"])
    for words in (["--model.fno_blocks"], ["--model.fno_blocks", "--lr", "3"]):
        with pytest.raises(click.UsageError, match=r"--model.fno_blocks has no value"):
            split_words(words)
