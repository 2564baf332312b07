"""A study file with a knob: one arm for each value, and what is not accepted."""

import pytest

from fnostab.errors import ConfigError
from fnostab.study.study import load_study

TEXT = """\
name: depths
description: How deep?
control: plain
stress: {STRESS}
task: ptychography
arms:
  plain: {model.architecture: hybrid}
  clipped: {inherits: plain, grid: {execution.gradient_clip_val: [1, 5]}}
"""


@pytest.fixture
def load(tmp_path):
    def written(stress):
        path = tmp_path / "study.yaml"
        path.write_text(TEXT.replace("{STRESS}", stress))
        return load_study(str(path), "small")

    return written


def test_every_arm_is_run_at_every_value(load):
    study = load("{model.fno_blocks: [2, 4]}")
    assert list(study.arms) == ["plain_2", "plain_4", "clipped_1_2", "clipped_1_4", "clipped_5_2", "clipped_5_4"]
    assert [settings["model.fno_blocks"] for settings in study.arms.values()] == [2, 4] * 3
    spec = study.spec("depths")
    assert (spec.knob, spec.control) == ("model.fno_blocks", "plain_2")
    assert spec.stressed["clipped_5"] == {"clipped_5_2": 2, "clipped_5_4": 4}
    assert type(spec).model_validate_json(spec.model_dump_json()) == spec


def test_a_knob_may_be_harder_the_lower(load):
    assert list(load("{data.nphotons: [1.0e+9, 1.0e+4]}").spec("x").stressed["plain"].values()) == [1e9, 1e4]


def test_its_knob_is_not_to_be_set_besides():
    with pytest.raises(ConfigError, match=r"stress_lr sets training\.learning_rate itself"):
        load_study("stress_lr", "small", {"training.learning_rate": 0.1})


def test_a_study_without_a_knob_has_none():
    spec = load_study("stage_a", "small").spec("stage_a")
    assert spec.knob is None
    assert spec.stressed == {}


@pytest.mark.parametrize(
    "stress",
    [
        "{model.fno_blocks: [2]}",
        "{model.fno_blocks: [2, 4, 3]}",
        "{model.fno_blocks: [2, 2]}",
        "{model.fno_blocks: [0, 2]}",
        "{model.fno_blocks: [a, b]}",
        "{model.fno_blocks: 4}",
        "{model.fno_blocks: [2, 4], data.N: [16, 32]}",
        "4",
    ],
)
def test_anything_else_is_refused_with_its_line(load, stress):
    with pytest.raises(ConfigError, match=r"study\.yaml, line 4: stress=.* is not accepted: it is one setting"):
        load(stress)
