import datetime
from pathlib import Path

import pytest

from fnostab.errors import ConfigError
from fnostab.ptychography.policy import (
    Policy,
    Source,
    architecture_policy,
    clipping_policy,
    policy_path,
    read_policy,
)
from fnostab.ptychography.settings import TrialConfig
from fnostab.record.settings import flatten
from fnostab.study.study import load_study

SOURCE = Source(headline="SILVER", run="5f0c", date=datetime.date(2026, 3, 1), conditions=("Stage A: full profile",))
HYBRID = {"model.architecture": "hybrid", "model.residual": "plain", "model.layerscale_init": 1e-3, "model.options": {}}
STABLE = HYBRID | {"model.architecture": "stable_hybrid", "model.residual": "zero_gamma"}
AGC = {"execution.gradient_clip_algorithm": "agc", "execution.gradient_clip_val": 0.01}
SILVER = clipping_policy(STABLE | AGC, SOURCE)
GOLD = architecture_policy(STABLE | AGC, HYBRID, SOURCE)
STUDY = """
task: ptychography
name: mine
description: A study of one's own.
control: silent
arms:
  silent: {}
  deeper: {model.fno_blocks: 5}
  unclipped: {execution.gradient_clip_val: null}
  clipped: {execution.gradient_clip_algorithm: value, execution.gradient_clip_val: 2.0}
  hybrid: {model.architecture: hybrid}
  damped: {model.architecture: stable_hybrid, model.residual: layerscale}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FNOSTAB_POLICY", raising=False)
    Path("mine.yaml").write_text(STUDY)
    return tmp_path


def clipping(study, arm):
    settings = study.arms[arm]
    return settings["execution.gradient_clip_algorithm"], settings["execution.gradient_clip_val"]


def network(study, arm):
    return study.arms[arm]["model.architecture"], study.arms[arm]["model.residual"]


def test_a_policy_reads_back_as_it_was_written():
    assert read_policy() is None
    GOLD.write(policy_path())
    assert read_policy() == GOLD
    assert GOLD.settings == {"model.architecture": "stable_hybrid", "model.residual": "zero_gamma"}
    assert GOLD.deprecated == ("hybrid",)
    SILVER.write(policy_path())
    assert read_policy() == SILVER
    assert [p.name for p in Path().iterdir() if "policy" in p.name] == ["fnostab-policy.yaml"]
    policy_path().unlink()
    assert read_policy() is None


def test_nothing_is_deprecated_where_control_has_the_winners_architecture():
    plain = HYBRID | {"model.architecture": "fno"}
    policy = architecture_policy(plain | {"model.residual": "layerscale"}, plain, SOURCE)
    assert policy.deprecated == ()
    assert policy.settings["model.layerscale_init"] == 1e-3


def test_a_network_of_ones_own_keeps_its_options():
    own = HYBRID | {"model.architecture": "mine.Net", "model.options.width": 3}
    del own["model.options"]
    assert architecture_policy(own, HYBRID, SOURCE).settings["model.options.width"] == 3


def test_clipping_holds_for_arms_that_say_nothing_on_it():
    SILVER.write(policy_path())
    study = load_study("mine.yaml", "small")
    for arm in ("silent", "deeper", "hybrid"):
        assert clipping(study, arm) == ("agc", 0.01)
    assert clipping(study, "unclipped") == ("norm", None)
    assert clipping(study, "clipped") == ("value", 2.0)


def test_the_command_line_wins_over_the_policy():
    SILVER.write(policy_path())
    study = load_study("mine.yaml", "small", {"execution.gradient_clip_val": 0.5})
    assert clipping(study, "silent") == ("norm", 0.5)


def test_an_architecture_is_taken_with_its_residual_or_not_at_all():
    GOLD.write(policy_path())
    study = load_study("mine.yaml", "small")
    assert network(study, "silent") == ("stable_hybrid", "zero_gamma")
    assert network(study, "deeper") == ("stable_hybrid", "zero_gamma")
    assert network(study, "hybrid") == ("hybrid", "plain")
    assert network(study, "damped") == ("stable_hybrid", "layerscale")


def test_the_policy_is_part_of_a_trials_identity_where_it_holds():
    before = load_study("mine.yaml", "small")
    SILVER.write(policy_path())
    after = load_study("mine.yaml", "small")
    changed = {arm for arm in before.arms if before.config_hashes[arm] != after.config_hashes[arm]}
    assert changed == {"silent", "deeper", "hybrid", "damped"}


@pytest.mark.parametrize("policy", [GOLD, SILVER])
@pytest.mark.parametrize("name", ["stage_a", "stage_b"])
def test_the_studies_that_verdicts_come_from_are_unaffected(policy, name):
    before = load_study(name, "full").hash
    policy.write(policy_path())
    assert load_study(name, "full").hash == before


def test_whoever_runs_a_study_is_told_of_the_policy(caplog):
    study = load_study("mine.yaml", "small")
    study.trials("e", Path("outputs"), seeds=[0])
    assert caplog.messages == []
    GOLD.write(policy_path())
    study = load_study("mine.yaml", "small")
    assert caplog.messages == []
    study.trials("e", Path("outputs"), seeds=[0, 1])
    in_force, deprecated = caplog.messages
    assert "model.architecture=stable_hybrid" in in_force
    assert "verdict run 5f0c" in in_force
    assert deprecated.startswith("arm hybrid uses hybrid, which that verdict deprecated")
    caplog.clear()
    study.trials("e", Path("outputs"), arms=["damped"], seeds=[0])
    assert len(caplog.messages) == 1


def test_control_may_use_what_is_deprecated(caplog):
    GOLD.write(policy_path())
    load_study("stage_a", "small").trials("e", Path("outputs"), arms=["control"], seeds=[0])
    assert not any("deprecated" in message for message in caplog.messages)


def test_the_environment_names_another_file(tmp_path, monkeypatch):
    elsewhere = tmp_path / "group" / "policy.yaml"
    monkeypatch.setenv("FNOSTAB_POLICY", str(elsewhere))
    with pytest.raises(ConfigError, match=r"can't write the policy .*group/policy.yaml: No such file"):
        SILVER.write(policy_path())
    elsewhere.parent.mkdir()
    SILVER.write(policy_path())
    assert clipping(load_study("mine.yaml", "small"), "silent") == ("agc", 0.01)
    assert not Path("fnostab-policy.yaml").exists()


def test_a_write_that_fails_leaves_the_policy_that_was(monkeypatch):
    SILVER.write(policy_path())

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ConfigError, match=r"fnostab-policy.yaml: No space left"):
        GOLD.write(policy_path())
    assert read_policy() == SILVER


VERDICT = "verdict: {headline: GOLD, run: 5f0c, date: 2026-03-01}\n"


def test_a_date_without_quotation_marks_is_one():
    policy_path().write_text(f"settings: {{execution.gradient_clip_val: 1.0}}\n{VERDICT}")
    policy = read_policy()
    assert policy is not None
    assert policy.verdict.date == SOURCE.date


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("settings: {a", "the policy fnostab-policy.yaml can't be read"),
        ("", "is not a policy: expected a mapping"),
        ("- 1", "is not a policy: expected a mapping"),
        (VERDICT, "settings is missing"),
        (f"settings: {{}}\nsetings: {{}}\n{VERDICT}", "unknown setting 'setings'.*did you mean 'settings'"),
        (f"settings: {{training.epochs: 3}}\n{VERDICT}", "settings: unknown setting 'training.epochs'.*clip_val"),
        (f"settings: {{execution.gradient_clip_val: -1}}\n{VERDICT}", "execution.gradient_clip_val=-1 is not accepted"),
        (f"settings: {{model.architecture: hybird}}\n{VERDICT}", "did you mean 'hybrid'"),
        ("settings: {}\nverdict: {headline: GOLD, run: x, date: soon}", "verdict.date='soon' is not accepted"),
        ("settings: {}\nverdict: {headline: GOLD, run: x, date: 2026-03-01, who: me}", "unknown setting 'verdict.who'"),
    ],
)
def test_a_damaged_policy_is_refused_with_its_file_and_key(text, problem):
    policy_path().write_text(text)
    with pytest.raises(ConfigError, match=problem) as refused:
        load_study("stage_a", "small")
    message = str(refused.value)
    assert "fnostab-policy.yaml" in message
    assert "\n" not in message
    assert message.endswith("; fix it, or delete it")


def test_a_policy_that_is_not_text():
    policy_path().write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"the policy fnostab-policy.yaml can't be read: it is not UTF-8 text"):
        read_policy()


def test_a_policy_that_is_a_folder():
    policy_path().mkdir()
    with pytest.raises(ConfigError, match=r"can't read the policy fnostab-policy.yaml: Is a directory"):
        read_policy()


def test_the_summary_is_one_line():
    assert Policy(settings=AGC, verdict=SOURCE).summary == (
        "execution.gradient_clip_algorithm=agc, execution.gradient_clip_val=0.01 (SILVER, verdict run 5f0c)"
    )


def winner_of(**settings):
    """All settings of an arm, as a study has them."""
    return flatten(TrialConfig.from_dotted({name.replace("__", "."): value for name, value in settings.items()}))


@pytest.mark.parametrize(
    "special",
    [
        {"model.spectral_weights": "published"},
        {"model.down_kernel": 2},
        {"model.min_resolution": 8},
        {"model.min_resolution": None},
        {"model.pre_norm": "rms", "model.limiter": "both", "model.limiter_tau": 2.0},
        {"model.head": "mine.Head", "model.options.depth": 2},
    ],
)
def test_what_is_special_in_the_winners_network_is_the_default_from_then_on(special):
    winner = flatten(TrialConfig.from_dotted({"model.architecture": "stable_hybrid", **special}))
    policy = architecture_policy(winner, HYBRID, SOURCE)
    assert policy.settings == {"model.architecture": "stable_hybrid", "model.residual": "zero_gamma", **special}
    settled = policy.settings_beside(["training.epochs"])
    assert TrialConfig.from_dotted(settled).model == TrialConfig.from_dotted(winner).model


@pytest.mark.parametrize("architecture", ["published_hybrid", "bounded_hybrid", "stable_hybrid"])
def test_what_an_architecture_brings_with_it_is_not_said_again(architecture):
    settings = architecture_policy(winner_of(model__architecture=architecture), HYBRID, SOURCE).settings
    assert settings.keys() == {"model.architecture", "model.residual"}


def test_a_resolution_that_only_other_patterns_meet_can_be_policy():
    winner = winner_of(data__N=48, model__min_resolution=3)
    assert architecture_policy(winner, HYBRID, SOURCE).settings["model.min_resolution"] == 3


def test_sizes_are_no_part_of_an_architecture():
    winner = winner_of(
        model__fno_blocks=6, model__hidden_channels=16, model__fno_modes=8, model__checkpoint_blocks=True
    )
    assert architecture_policy(winner, HYBRID, SOURCE).settings.keys() == {"model.architecture", "model.residual"}


def test_clipping_is_taken_with_all_that_belongs_to_it():
    agc = {"execution.gradient_clip_algorithm": "agc", "execution.gradient_clip_val": 0.02}
    exempt = {**agc, "execution.agc_exempt": "decoder"}
    assert clipping_policy(flatten(TrialConfig.from_dotted(agc)), SOURCE).settings == agc
    assert clipping_policy(flatten(TrialConfig.from_dotted(exempt)), SOURCE).settings == exempt


def test_options_go_with_clipping_of_ones_own_and_with_no_other():
    options = {"training.optimizer": "mine.adam", "training.options.window": 25}
    norm = {"execution.gradient_clip_algorithm": "norm", "execution.gradient_clip_val": 1.0}
    own = {"execution.gradient_clip_algorithm": "mine.Clip", "execution.gradient_clip_val": 1.0}
    by_norm, by_own = (clipping_policy(flatten(TrialConfig.from_dotted(options | how)), SOURCE) for how in (norm, own))
    assert by_norm.settings == norm
    assert by_own.settings == own | {"training.options.window": 25}
    named = ["training.optimizer", "training.options.decay"]  # an optimiser's
    assert by_norm.settings_beside(named) == norm
    assert by_own.settings_beside(named) == {}
