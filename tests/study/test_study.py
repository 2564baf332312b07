"""From YAML to trials."""

import os
from pathlib import Path

import numpy as np
import pytest

from fnostab.errors import ConfigError, DataError, LaunchError
from fnostab.ptychography.settings import TrialConfig
from fnostab.record import names
from fnostab.record.journal import Journal
from fnostab.record.trial import StudySpec, TrialSpec
from fnostab.study import study as study_module
from fnostab.study.study import load_study, trial_folder
from fnostab.tasks.registry import built_in_studies

OWN = """
task: ptychography
name: mine
description: Does a wider network train?
control: narrow
arms:
  narrow: {model.hidden_channels: 4}
  wide: {model: {hidden_channels: 8}}
seeds: [3, 5]
"""


@pytest.fixture
def own(tmp_path):
    """Writes a study of one's own, with lines of `OWN` replaced or added, and returns its path."""

    def write(*replacements, more=""):
        text = OWN
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "mine.yaml"
        path.write_text(text + more)
        return str(path)

    return write


def configs(name, profile):
    """Arms of a study as configurations of the task."""
    return {arm: TrialConfig.from_dotted(settings) for arm, settings in load_study(name, profile).arms.items()}


@pytest.mark.parametrize("name", built_in_studies())
@pytest.mark.parametrize("profile", ["small", "full"])
def test_a_built_in_study_resolves(name, profile):
    study = load_study(name, profile)
    assert study.file.name == name
    assert study.file.control in study.arms
    assert len(set(study.config_hashes.values())) == len(study.arms)


def test_arms_with_the_same_settings_are_named(own):
    study = load_study(own(("  narrow:", "  twin: {model.hidden_channels: 4}\n  narrow:")), "small")
    assert study.twins() == ["twin has the settings of narrow: it is not compared, and no test counts it"]
    assert study.spec("mine").same_settings == {"twin": "narrow"}
    assert study.twins(("narrow", "wide")) == []


@pytest.mark.parametrize(("word", "same"), [("", {"twin": "plain"}), ("{arm}", {})])
def test_arms_of_a_command_that_is_told_their_names_are_not_the_same(tmp_path, word, same):
    path = tmp_path / "told.yaml"
    path.write_text(
        f"name: told\ndescription: Which?\ncommand: train --seed {{seed}} {word}\n"
        "control: plain\narms: {plain: {}, twin: {}}\n"
    )
    assert load_study(str(path)).spec("told").same_settings == same


def test_the_shootout_is_the_strategys():
    arms = configs("stage_a", "full")
    assert list(arms) == ["control", "arch_fix", "opt_fix", "cure"]
    control, architecture, clipping, cure = arms.values()
    assert (control.model.architecture, control.model.residual) == ("hybrid", "plain")
    assert (architecture.model.architecture, architecture.model.residual) == ("stable_hybrid", "zero_gamma")
    assert clipping.model == control.model
    assert clipping.execution.gradient_clip_algorithm == "agc"
    assert (control.execution.gradient_clip_val, clipping.execution.gradient_clip_val) == (None, 0.01)
    assert cure.model == control.model
    assert (cure.training.warmup_steps, cure.execution.gradient_clip_val) == (60, 1.0)
    for config in arms.values():
        assert (config.data.N, config.model.hidden_channels, config.model.fno_blocks) == (64, 32, 4)
        assert (config.model.fno_modes, config.training.learning_rate) == (12, 1e-3)
        assert config.data.set_phi
        assert config.training.epochs <= 20
    deep = configs("stage_b", "full")
    assert deep["control"].model.fno_blocks == 2 * control.model.fno_blocks
    clipped = deep["clipped_control"]  # the published Stage A's winner
    assert clipped.model == deep["control"].model
    assert (clipped.execution.gradient_clip_algorithm, clipped.execution.gradient_clip_val) == ("norm", 1.0)


def test_trials_go_seed_by_seed_so_that_a_study_cut_short_is_balanced(own, tmp_path):
    trials = load_study(own(), "small").trials("e", tmp_path)
    assert [(t.spec.seed, t.spec.arm) for t in trials] == [(3, "narrow"), (3, "wide"), (5, "narrow"), (5, "wide")]
    fewer = load_study(own(), "small").trials("e", tmp_path, arms=["wide"], seeds=[7])
    assert [(t.spec.seed, t.spec.arm) for t in fewer] == [(7, "wide")]
    counted = load_study(own(("[3, 5]", "2")), "small").trials("e", tmp_path)
    assert [t.spec.seed for t in counted] == [0, 0, 1, 1]


def test_later_layers_win(own):
    """Defaults < profile < study < study for the profile < arm < command line."""
    size = "model.hidden_channels"

    def wide(path, **overrides):
        return load_study(path, "small", overrides).arms["wide"][size]

    without = (("{model: {hidden_channels: 8}}", "{model.fno_modes: 3}"),)
    assert wide(own(*without)) == 8 != TrialConfig().model.hidden_channels  # the profile's
    assert wide(own(*without, more=f"defaults: {{{size}: 5}}")) == 5
    both = f"defaults: {{{size}: 5}}\nprofiles: {{small: {{{size}: 6}}, full: {{{size}: 7}}}}"
    assert wide(own(*without, more=both)) == 6
    assert wide(own(("hidden_channels: 8", "hidden_channels: 9"), more=both)) == 9
    assert wide(own(("hidden_channels: 8", "hidden_channels: 9"), more=both), **{size: 10}) == 10


def test_auto_is_full_where_there_is_a_gpu(monkeypatch):
    for gpus, profile in ((0, "small"), (2, "full")):
        monkeypatch.setattr(study_module, "count_gpus", lambda gpus=gpus: gpus)
        assert load_study("stage_a").profile == profile


def test_the_hash_covers_what_changes_the_numbers(own):
    def hash_with(path=None, **settings):
        return load_study(path or own(), "small", {k.replace("__", "."): v for k, v in settings.items()}).hash

    unchanged = hash_with()
    assert hash_with(own(("[3, 5]", "20"))) == unchanged  # more seeds extend a study
    assert hash_with(own(("wider network", "larger network"))) == unchanged
    assert hash_with(execution__device="cpu") == unchanged
    assert hash_with(monitor__collapsed_spread=0.3) == unchanged  # trials can be judged again by other rules
    assert (
        hash_with(own(("  wide: {model: {hidden_channels: 8}}", "  wide: {model: {hidden_channels: 9}}"))) == unchanged
    )
    changed = [
        hash_with(execution__gradient_clip_val=1.0),
        hash_with(execution__gradient_clip_val=1.0, execution__gradient_clip_algorithm="agc"),
        hash_with(monitor__after_failure="continue"),
        hash_with(data__seed=1),
        hash_with(training__learning_rate=1e-4),
        load_study(own(), "full").hash,
    ]
    assert len({unchanged, *changed}) == 1 + len(changed)


def test_a_probe_counts_by_its_content_not_by_its_place(own, tmp_path):
    def hash_with(path, phase):
        np.savez(path, probe=np.full((32, 32), np.exp(1j * phase)))
        return load_study(own(), "small", {"data.probe.path": str(path)}).hash

    here = hash_with(tmp_path / "here.npz", 1.0)
    assert hash_with(tmp_path / "there.npz", 1.0) == here
    assert hash_with(tmp_path / "here.npz", 2.0) != here


def test_records_of_a_study_and_its_trials_read_back_equal(own, tmp_path):
    study = load_study(own(more="roles: {architecture: wide}"), "small")
    for record in (study.spec("mine"), *(trial.spec for trial in study.trials("mine", tmp_path))):
        path = tmp_path / "folder" / "record.json"
        record.write(path)
        assert type(record).read(path) == record


def test_a_record_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "trial.json"
    with pytest.raises(LaunchError, match=r"can't read .*trial.json: No such file"):
        TrialSpec.read(path)
    path.write_text('{"experiment": "a"}')
    with pytest.raises(LaunchError, match=r"trial.json is not a TrialSpec: task field required"):
        TrialSpec.read(path)
    path.write_text("{torn")
    with pytest.raises(LaunchError, match="is not a StudySpec"):
        StudySpec.read(path)


@pytest.mark.parametrize(
    ("content", "end"),
    [
        (b"", "or delete it: `fnostab run` of its study writes it again"),
        (bytes(500), "or delete it: `fnostab run` of its study writes it again"),  # after a power cut
        (b'{"experiment": "a"}', "a study of an earlier version can't be continued: choose another --output"),
    ],
)
def test_a_trial_file_that_cannot_be_read_says_what_to_do(tmp_path, content, end):
    (tmp_path / "control-0").mkdir()
    (tmp_path / "control-0" / "trial.json").write_bytes(content)
    with pytest.raises(LaunchError) as error:
        trial_folder(tmp_path, "control", "0" * 16, 0)
    assert str(error.value).endswith(end)


@pytest.mark.parametrize(
    ("replacement", "message"),
    [
        (("wide:", "wide arm:"), r"arms.*wide arm"),
        (("control: narrow", "control: none"), r"no arm 'none'; arms: narrow, wide"),
        (
            ("control: narrow", "control: narow"),
            r"control: no arm 'narow' \(did you mean 'narrow'\?\); arms: narrow, wide",
        ),
        (("name: mine", "name: mine\nroles: {clipping: wid}"), r"clipping: no arm 'wid' \(did you mean 'wide'\?\)"),
        (("control: narrow\n", ""), "control"),
        (
            ("  narrow:", "  étroit:"),
            "'étroit' is not accepted: it names a folder too, so start it with a letter of a to z",
        ),
        (
            (OWN[OWN.index("arms:") : OWN.index("seeds:")], "arms: [narrow]\n"),
            "arms=.* is not accepted: input should be a mapping$",
        ),
        (("[3, 5]", "0"), "seeds"),
        (("[3, 5]", "[]"), "seeds"),
        (("[3, 5]", "[1, -2]"), "seeds"),
        (("control: narrow", "contrl: narrow"), r"line \d+: unknown setting 'contrl' \(did you mean 'control'\?\)"),
        (("seeds:", "sedes:"), r"unknown setting 'sedes' \(did you mean 'seeds'\?\)"),
        (
            ("seeds: [3, 5]", "outcome: {collapsed: {val/spread: {blow: 0.1}}}"),
            r"'outcome.collapsed.val/spread.blow' \(did you mean 'below'\?\); accepted: above, below, validations",
        ),
        (
            ("seeds: [3, 5]", "measures: {margin: {margn: 0.1}}"),
            r"'measures.margin.margn' \(did you mean 'margin'\?\); accepted: higher_is_better, margin$",
        ),
        (("model.hidden_channels: 4", "model.hiden_channels: 4"), r"arm narrow: .*hiden_channels.*did you mean"),
        (("model.hidden_channels: 4", "model.hidden_channels: -4"), r"arm narrow: model.hidden_channels=-4"),
        (("model.hidden_channels: 4", "training.epochs: 21"), r"arm narrow: .*epochs=21.*stress_test=true"),
        (("model.hidden_channels: 4", "model.architecture: hybird"), r"'hybird' is not known.*'hybrid'"),
        (
            ("seeds: [3, 5]", "metric: {name: test/ssim_phase, higher_is_better: true, of: null}"),
            r"narrow has data.set_phi=false.*set data.set_phi=true",
        ),
        (("seeds: [3, 5]", "metric: {name: accuracy}"), r"'accuracy' is not known; accepted: val_loss"),
        ((OWN, "- a\n- list\n"), "is not a study: expected a mapping"),
        ((OWN, "{"), r"is not YAML: .* at line 1, column 2: \{ \^$"),
    ],
)
def test_a_study_that_cannot_run_is_refused_with_the_name_of_what_is_wrong(own, replacement, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_study(own(replacement), "small")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("{name: val_loss, higher_is_better: true}", "higher_is_better: false, of: best or last"),
        ("{name: val_loss, of: null}", "higher_is_better: false, of: best or last"),
        ("{name: test/ssim_amp, of: null}", "higher_is_better: true, of: null"),
        ("{name: test/mae_amp, of: best}", "higher_is_better: false, of: null"),
    ],
)
def test_a_metric_that_would_be_read_the_wrong_way_is_refused(own, metric, expected):
    with pytest.raises(ConfigError, match=f"mine.yaml, line 9: metric .*expected {expected}"):
        load_study(own(("seeds: [3, 5]", f"metric: {metric}")), "small")


def test_a_metric_may_be_given_by_its_name_alone(own):
    line = "seeds: [3, 5]"
    short, long = (load_study(own((line, f"metric: {metric}")), "small") for metric in ("val_loss", "{name: val_loss}"))
    assert (short.metric, short.hash) == (long.metric, long.hash)


def test_what_does_not_exist_is_refused_with_what_does(own, tmp_path):
    said = r"no study 'stage_z' \(did you mean 'stage_b'\?\); built in: .*stage_a, stage_b.*; or .* \.yaml"
    with pytest.raises(ConfigError, match=said):
        load_study("stage_z")
    with pytest.raises(ConfigError, match=r"profile='tiny' is not known; accepted: auto, full, small"):
        load_study("stage_a", "tiny")
    with pytest.raises(ConfigError, match=r"no arm 'arch_fx' \(did you mean 'arch_fix'\?\); arms: control, arch"):
        load_study("stage_a", "small").trials("e", tmp_path, arms=["arch_fx"])
    with pytest.raises(ConfigError, match=r"can't read the study .*absent.yaml: No such file"):
        load_study(str(tmp_path / "absent.yaml"))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"can't read the study .*binary.yaml"):
        load_study(str(tmp_path / "binary.yaml"))
    with pytest.raises(ConfigError, match=r"experiment='a/b' is not accepted"):
        load_study("stage_a", "small").spec("a/b")
    with pytest.raises(DataError, match=r"can't read the probe .*absent.npz: No such file.*check data.probe.path"):
        load_study(own(), "small", {"data.probe.path": "absent.npz"})
    with pytest.raises(ConfigError, match=r"data.probe.path=7 is not accepted"):
        load_study(own(), "small", {"data.probe.path": 7})


def test_a_path_may_be_a_path(own, tmp_path):
    study = load_study(Path(own()), "small")
    assert study.spec("e") == load_study(own(), "small").spec("e")
    with pytest.raises(ConfigError, match="no study 'stage_z'"):
        load_study(Path("stage_z"))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("data.N=32", r"load_study: overrides='data.N=32' is not accepted: expected a mapping, as \{'lr': 0.1\}"),
        ({1: 32}, "load_study: overrides: the name 1 of a setting is not text"),
    ],
)
def test_overrides_that_are_no_settings_are_refused(own, overrides, said):
    with pytest.raises(ConfigError, match=said):
        load_study(own(), "small", overrides)


def test_an_override_may_be_a_number_of_an_array_library(own):
    study = load_study(own(), "small", {"training.learning_rate": np.float32(0.5)})
    assert study.arms["narrow"]["training.learning_rate"] == 0.5


def test_a_probe_is_looked_for_where_the_user_is(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("probe.npz", probe=np.ones((32, 32), complex))
    settings = load_study(own(), "small", {"data.probe.path": "probe.npz"}).arms["wide"]
    assert settings["data.probe.path"] == os.path.abspath("probe.npz")
    assert settings["data.probe.sha256"]


class TestTrialFolder:
    """A study that is started again, with other arms or seeds."""

    @pytest.fixture
    def trials(self, own, tmp_path):
        """A function that gives a study's trials by name, and writes their records as a launcher does."""

        def make(*replacements, **options):
            made = load_study(own(*replacements), "small").trials("mine", tmp_path, **options)
            for trial in made:
                trial.spec.write(trial.directory / "trial.json")
            return {trial.name: trial for trial in made}

        return make

    def test_it_is_named_by_arm_and_seed_in_the_folder_of_the_study(self, own, trials, tmp_path):
        study = load_study(own(), "small")
        folder = study.folder(tmp_path, "mine")
        assert folder == tmp_path / "mine" / study.hash
        assert {name: trial.directory for name, trial in trials().items()} == {
            name: folder / name for name in ("narrow-3", "wide-3", "narrow-5", "wide-5")
        }

    def test_added_arms_and_seeds_extend_a_study(self, own, trials):
        before = trials()
        with Journal(before["wide-5"].directory) as journal:
            journal.event(names.OUTCOME_EVENT, {"outcome": "collapsed", "failure_step": 7})
        more = (("[3, 5]", "[3, 5, 7]"), ("seeds:", "  wider: {model.hidden_channels: 16}\nseeds:"))
        after = trials(*more)
        assert load_study(own(*more), "small").hash == load_study(own(), "small").hash
        assert set(after) - set(before) == {"narrow-7", "wide-7", "wider-3", "wider-5", "wider-7"}
        for name, trial in before.items():
            assert (after[name].directory, after[name].spec) == (trial.directory, trial.spec)
        after["wide-5"].update()
        assert (after["wide-5"].finished, after["wide-5"].failure_step) == (True, 7)

    def test_an_arm_with_other_settings_gets_another_folder(self, trials):
        before = trials()
        other = (("hidden_channels: 8", "hidden_channels: 16"),)
        after, again = trials(*other), trials(*other)
        for name in ("narrow-3", "narrow-5"):
            assert after[name].directory == before[name].directory
        for name in ("wide-3", "wide-5"):
            hashed = f"{name}-{after[name].spec.config_hash[:8]}"
            assert after[name].directory == again[name].directory == before[name].directory.with_name(hashed)
            assert TrialSpec.read(before[name].directory / "trial.json") == before[name].spec
        assert trials()["wide-3"].directory == before["wide-3"].directory

    def test_what_is_no_part_of_the_identity_keeps_the_folder(self, trials):
        before = trials()
        rules = (("seeds:", "defaults: {monitor.collapsed_spread: 0.3}\nseeds:"),)
        assert {name: t.directory for name, t in trials(*rules).items()} == {n: t.directory for n, t in before.items()}

    def test_other_settings_of_control_are_another_study(self, trials):
        other = (("hidden_channels: 4", "hidden_channels: 5"),)
        assert trials()["wide-3"].directory.parent != trials(*other)["wide-3"].directory.parent

    def test_a_folder_of_an_earlier_version_is_not_gone_on_with(self, trials):
        (trials()["wide-3"].directory / "trial.json").write_text('{"experiment": "mine", "arm": "wide", "seed": 3}')
        with pytest.raises(LaunchError, match=r"wide-3/trial.json .*earlier version .*choose another --output"):
            trials()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "seeds: [3, 5]",
            "seeds: 1000000000",
            "line 9: seeds: 1,000,000,000 are not accepted; a study has at most 10,000",
        ),
        ("seeds: [3, 5]", f"seeds: {list(range(10_001))}", "line 9: seeds: 10,001 are not accepted"),
        (
            "{model.hidden_channels: 4}",
            f"{{grid: {{{', '.join(f's{i}: {list(range(10))}' for i in range(7))}}}}}",
            r"line 7: written out, arm 'narrow' is 10,000,000 arms",
        ),
        (
            "  wide:",
            "".join(f"  a{i}: {{inherits: {f'a{i + 1}' if i < 900 else 'wide'}}}\n" for i in range(901)) + "  wide:",
            "arm 'a0' inherits from more than 100 arms in a row",
        ),
        ("  wide:", "".join(f"  a{i}: {{}}\n" for i in range(3000)) + "  wide:", "line 6: 3,002 arms are not accepted"),
    ],
    ids=["seeds", "list of seeds", "grid", "inherits", "arms"],
)
def test_what_is_too_large_is_refused_before_it_is_written_out(own, old, new, message):
    with pytest.raises(ConfigError, match=message):
        load_study(own((old, new)))


def test_trials_are_counted_before_they_are_made(own, tmp_path):
    grid = "{grid: {training.batch_size: [1, 2, 4, 8, 16, 32], training.learning_rate: [0.1, 0.2]}}"
    study = load_study(own(("{model.hidden_channels: 4}", grid), ("control: narrow", "control: narrow_1_0.1")))
    with pytest.raises(ConfigError, match=r"13 arms with 10,000 seeds each are 130,000 trials; .* at most 100,000"):
        study.trials("x", tmp_path, seeds=range(10_000))


def test_what_the_deep_study_must_meet_stands_in_the_study_before_it(own):
    asked = "\nfollow_up_criteria: [grad_bounded, matches_stage_a]"
    with pytest.raises(ConfigError, match=r"follow_up_criteria judge the study that follows this one: name it"):
        load_study(own(more=asked), "small")
    spec = load_study(own(more=f"{asked}\nfollow_up: stage_b"), "small").spec("mine")
    assert spec.follow_up_criteria == ("grad_bounded", "matches_stage_a")


def test_a_seed_that_is_listed_twice_is_refused(own):
    path = own(("[3, 5]", "[1, 1, 2]"))
    with pytest.raises(ConfigError, match=r"seeds=\[1, 1, 2\] is not accepted: a list without repetition"):
        load_study(str(path))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("seeds: '0-4'", "is not accepted: expected their number, as 10, or a list"),
        ("seeds: [true]", "is not accepted: expected their number, as 10, or a list"),
        ("seeds: []", "is not accepted: expected their number, as 10, or a list"),
        ("seeds: true", "line 9: seeds: True is not accepted"),
        ("seeds: [3, 5]\nmargin: true", "line 10: margin: True is not accepted: expected a number"),
        ("seeds: [3, 5]\nalpha: true", "line 10: alpha: True is not accepted: expected a number"),
    ],
)
def test_what_is_no_number_is_not_taken_for_one(own, more, said):
    with pytest.raises(ConfigError, match=said):
        load_study(own(("seeds: [3, 5]", more)), "small")


@pytest.mark.parametrize("more", ["", "\nstress: {model.fno_blocks: [2, 3]}"])
@pytest.mark.parametrize("parent", ["[narrow]", "{narrow: 1}"])
def test_a_list_where_an_arm_is_named_is_refused(own, parent, more):
    with pytest.raises(ConfigError, match=r"line 8: no arm .*narrow.* to inherit from: narrow, wide"):
        load_study(own(("{model: {hidden_channels: 8}}", f"{{inherits: {parent}}}"), more=more), "small")
    with pytest.raises(ConfigError, match=r"line 5: control=.*narrow.* is not accepted"):
        load_study(own(("control: narrow", f"control: {parent}"), more=more), "small")
