"""A deep study keeps what its arms were run with, and changes the depth."""

import re

import pytest

from fnostab.errors import ConfigError
from fnostab.ptychography.deep_study import deep_study
from fnostab.study.file import read_study_file
from fnostab.study.study import load_study

STAGE_B = read_study_file("stage_b")


def earlier(**overrides):
    return load_study("stage_a", "small", {name.replace("__", "."): v for name, v in overrides.items()}).spec("mine")


def test_only_what_the_file_says_to_all_arms_is_changed():
    before = earlier(training__learning_rate=0.002, data__nphotons=1e6)
    after = deep_study(STAGE_B, before)
    assert list(after.arms) == list(before.arms)
    for arm, settings in after.arms.items():
        changed = {name for name, value in settings.items() if before.arms[arm][name] != value}
        assert changed == {"model.fno_blocks", "model.max_hidden_channels"}
        assert (settings["model.fno_blocks"], settings["training.learning_rate"]) == (6, 0.002)
    assert (after.profile, after.file.name) == ("small", "stage_b")


def test_of_the_usual_stage_a_it_is_the_usual_stage_b():
    assert deep_study(STAGE_B, earlier()).hash == load_study("stage_b", "small").hash


def test_parts_and_rules_are_those_of_the_earlier_study():
    before = earlier().model_copy(update={"roles": {"clipping": "opt_fix"}, "alpha": 0.01, "margin": 0.5})
    record = deep_study(STAGE_B, before).spec("deep")
    assert (record.roles, record.alpha, record.margin) == ({"clipping": "opt_fix"}, 0.01, 0.5)


def test_the_command_line_has_the_last_word():
    study = deep_study(STAGE_B, earlier(), "small", {"model.fno_blocks": 5})
    assert study.arms["control"]["model.fno_blocks"] == 5


@pytest.mark.parametrize(
    ("depth", "profile", "overrides", "message"),
    [
        (3, "full", {}, "profile='full', but mine was run with the small profile"),
        (6, "auto", {}, "model.fno_blocks=6 is not deeper than arm control was in mine (6): set more, as with --set "),
        (3, "auto", {"model.fno_blocks": 2}, "model.fno_blocks=2 is not deeper than arm control was in mine (3)"),
        (3, "auto", {"model.fno_blocs": 8}, "arm control: unknown setting 'model.fno_blocs'"),
    ],
)
def test_what_makes_no_deep_test_is_refused(depth, profile, overrides, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        deep_study(STAGE_B, earlier(model__fno_blocks=depth), profile, overrides)
