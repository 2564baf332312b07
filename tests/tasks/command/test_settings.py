"""A default fixes the type of its setting."""

import pytest

from fnostab.errors import ConfigError
from fnostab.record.settings import read_yaml
from fnostab.tasks.command.settings import declare, resolve

DECLARED = declare(
    {
        "lr": 0.1,
        "epochs": 3,
        "name": "a",
        "norm": False,
        "widths": [1, 2],
        "clip": {"type": "float", "default": None},
        "depth": {"type": "int", "default": 2},
    }
)


def test_later_layers_win():
    values = resolve(DECLARED, [{"lr": 0.2, "norm": True}, {"lr": 1, "clip": 0.5, "widths": ["a"]}])
    assert values == {
        "lr": 1,
        "epochs": 3,
        "name": "a",
        "norm": True,
        "widths": ["a"],
        "clip": 0.5,
        "depth": 2,
    }


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("lr", "0.1", "a number"),
        ("lr", True, "a number"),
        ("lr", float("inf"), "a number"),
        ("lr", None, "a number"),
        ("name", 1, "text: in YAML, quote text that looks like a number, a date, true or false, as '1e5'"),
        ("name", False, "text: in YAML, quote text that looks like a number, a date, true or false, as '1e5'"),
        ("norm", 1, "true or false"),
        ("widths", 1, "a list"),
        ("widths", [[1]], "a list"),
        ("widths", [float("inf")], "a list"),
        ("clip", "x", "a number or null"),
        ("depth", 1.5, "a whole number"),
    ],
)
def test_a_value_of_another_type_is_refused(name, value, expected):
    with pytest.raises(ConfigError, match=f"^{name}=.* is not accepted: expected {expected}$") as error:
        resolve(DECLARED, [{name: value}])
    assert error.value.setting == name


def test_a_hash_that_reads_as_a_number_is_not_made_infinite():
    for text in ("{name: 12e4567}", "{widths: [a, -12e4567]}", "lr: 1e400"):
        with pytest.raises(ConfigError, match=r"'-?1\d?e4\d+' in line 1 is too large for a number: quote it"):
            read_yaml(text)
    assert read_yaml("[.inf, '12e4567', 1e300]") == [float("inf"), "12e4567", 1e300]


def test_a_number_with_an_exponent_needs_no_point():
    values = resolve(DECLARED, [read_yaml("{lr: 1e-3, clip: +2E-1, depth: 1e1, name: '1e-3'}")])
    assert [values[name] for name in ("lr", "clip", "depth", "name")] == [0.001, 0.2, 10, "1e-3"]
    assert read_yaml("[5e-2, -.5e1, 1.e3, e5, 1e, 0x1e5, 1e5x]") == [0.05, -5.0, 1000.0, "e5", "1e", 0x1E5, "1e5x"]


def test_an_unknown_name_is_refused_with_what_may_be_meant():
    with pytest.raises(ConfigError, match=r"unknown setting 'epoch' .*did you mean 'epochs'"):
        resolve(DECLARED, [{"epoch": 3}])


@pytest.mark.parametrize(
    ("defaults", "message"),
    [
        ({"x": None}, "null has no type"),
        ({"x": {"type": "complex", "default": 1}}, "types: number"),
        ({"x": {"default": 1}}, "expected {type"),
        ({"x": {"type": "int", "default": "a"}}, "a whole number"),
        ({"seed": 1}, "reserved"),
        ({"grid": 1}, "reserved"),
    ],
)
def test_a_default_needs_a_type(defaults, message):
    with pytest.raises(ConfigError, match=message):
        declare(defaults)


def test_numbers_in_a_list_and_in_defaults_are_written_one_way_too():
    clip = {"type": "float", "default": 2.0}
    declared = declare({"lr": 1.0, "widths": [1.0, 2.5, True], "note": "1.0", "clip": clip})
    assert repr(resolve(declared, [])) == "{'lr': 1, 'widths': [1, 2.5, True], 'note': '1.0', 'clip': 2}"
