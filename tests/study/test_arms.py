"""Arms that inherit, and grids: what is written out, and errors that name the line."""

import pytest

from fnostab.errors import ConfigError
from fnostab.study.study import load_study

GRID = """
name: mine
description: Which rate?
control: base
arms:
  base:
    model.hidden_channels: 4
    training: {epochs: 2}
  rate:
    inherits: base
    grid:
      training.learning_rate: [0.1, 1.0e-5]
      execution.gradient_clip_val: [null, 1.0]
  wide_rate: {inherits: rate, model.hidden_channels: 8}
  wide: {inherits: wide_rate, grid: {}}
task: ptychography
"""


@pytest.fixture
def written(tmp_path):
    def write(text):
        (tmp_path / "mine.yaml").write_text(text)
        return str(tmp_path / "mine.yaml")

    return write


def test_arms_inherit_settings_and_grids(written):
    arms = load_study(written(GRID), "small").arms
    combinations = ["0.1_none", "0.1_1", "1e-5_none", "1e-5_1"]
    assert list(arms) == [
        "base",
        *(f"rate_{each}" for each in combinations),
        *(f"wide_rate_{each}" for each in combinations),
        "wide",
    ]
    one = arms["rate_1e-5_1"]
    assert (one["training.learning_rate"], one["execution.gradient_clip_val"]) == (1e-5, 1.0)
    assert (one["training.epochs"], one["model.hidden_channels"]) == (2, 4)
    assert arms["wide_rate_0.1_none"]["model.hidden_channels"] == 8
    assert (arms["wide"]["model.hidden_channels"], arms["wide"]["training.epochs"]) == (8, 2)
    assert arms["wide"]["training.learning_rate"] == arms["base"]["training.learning_rate"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("inherits: base", "inherits: bass", r"line 10: no arm 'bass' to inherit from: base, rate, wide"),
        ("{epochs: 2}", "{epoch: 2}", r"line 8: arm base: unknown setting 'training.epoch' \(did you mean 'epochs'"),
        ("{epochs: 2}", "{epochs: 99}", r"line 8: arm base: training: epochs=99 is above 20"),
        ("[0.1, 1.0e-5]", "[0.1, -0.5]", r"line 12: arm rate_-0.5_none: training.learning_rate=-0.5 is not accepted"),
        ("[0.1, 1.0e-5]", "[]", r"line 11: grid=.* is not accepted: .* a list of values"),
        ("[0.1, 1.0e-5]", "0.1", r"line 11: grid=.* is not accepted"),
        ("[0.1, 1.0e-5]", "[0.1, 1.0e-1]", r"line 9: two arms are named 'rate_0.1_none'"),
        ("wide:", "NaN: {}\n  wide:", r"the arm 'NaN' would be missing in a table: rename it"),
        ("wide:", "Base: {}\n  wide:", r"arms 'base' and 'Base' differ by capitals alone, .*: rename one of them"),
        (
            "control: base",
            "control: bass",
            r"mine.yaml: control: no arm 'bass' \(did you mean 'base'\?\); arms: base, rate",
        ),
        (
            "    model.hidden_channels: 4\n",
            "    inherits: wide\n",
            r"circle: base -> wide -> wide_rate -> rate -> base",
        ),
        (
            "  wide: {inherits: wide_rate, grid: {}}",
            "  wide: 3",
            r"line 15: arms.wide=3 is not accepted: it is a mapping",
        ),
        ("name: mine", "name: mine\nseeds: [1, -2]", r"line 3: seeds"),
        ("name: mine", "name: mine\nroles: {clip: base}", r"line 3: roles: the name 'clip'"),
    ],
)
def test_the_line_is_named(written, old, new, message):
    assert old in GRID
    with pytest.raises(ConfigError, match=message):
        load_study(written(GRID.replace(old, new, 1)), "small")


def test_a_setting_of_the_command_line_is_in_no_line(written):
    with pytest.raises(ConfigError, match=r"^arm base: training.epochs=-1 is not accepted"):
        load_study(written(GRID), "small", {"training.epochs": -1})


def test_arms_may_be_nothing_but_a_name(written):
    text = "name: one\ndescription: d\ncontrol: a\narms:\n  a:\ntask: ptychography\n"
    assert list(load_study(written(text), "small").arms) == ["a"]
    with pytest.raises(ConfigError, match="line 4: arms"):
        load_study(written(text.replace("\n  a:", " {}")), "small")
