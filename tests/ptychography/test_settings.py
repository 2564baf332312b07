import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnostab.errors import ConfigError
from fnostab.ptychography.settings import DataConfig, ModelConfig, TrialConfig
from fnostab.record.settings import file_sha256, flatten, nest


def refusal(**settings):
    """The one line with which ``settings`` (``__`` for a dot) are refused."""
    with pytest.raises(ConfigError) as refused:
        TrialConfig.from_dotted({name.replace("__", "."): value for name, value in settings.items()})
    message = str(refused.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model__fno_bloks": 8}, ["'model.fno_bloks'", "did you mean 'fno_blocks'?", "accepted: architecture"]),
        ({"modle__fno_blocks": 8}, ["'modle'", "did you mean 'model'?"]),
        ({"data__probe__radios": 0.2}, ["'data.probe.radios'", "did you mean 'radius'?"]),
        ({"training__lr": 1e-3}, ["'training.lr'", "accepted: epochs", "learning_rate"]),
    ],
)
def test_an_unknown_name_is_refused_with_the_accepted_ones(settings, said):
    message = refusal(**settings)
    assert all(text in message for text in said)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model__fno_blocks", "eight"),
        ("model__fno_blocks", 2.5),
        ("model__fno_blocks", True),  # YAML 1.1 reads `yes` so
        ("model__fno_blocks", -1),
        ("model__architecture", ["hybrid"]),
        ("training__learning_rate", "fast"),
        ("training__learning_rate", float("nan")),
        ("training__learning_rate", 0),
        ("training__optimizer", "lion"),
        ("training__momentum", 1.0),
        ("data__nphotons", float("inf")),
        ("data__set_phi", "maybe"),
        ("execution__gradient_clip_val", -1.0),
        ("execution__gradient_clip_algorithm", "global"),
        ("monitor__after_failure", "explode"),
        ("monitor__block_steps", 0),
        ("model", 3),
        ("vary", ["weather"]),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_by_name(name, value):
    message = refusal(**{name: value})
    assert message.startswith(name.replace("__", "."))
    assert str(value).strip("[]'") in message


def test_numbers_come_as_text_from_a_command_line():
    config = TrialConfig.from_dotted({"model.fno_blocks": "8", "training.learning_rate": "1e-2"})
    assert (config.model.fno_blocks, config.training.learning_rate) == (8, 0.01)


def test_more_than_20_epochs_are_a_stress_test():
    assert TrialConfig.from_dotted({"training.epochs": 20}).training.epochs == 20
    assert "training.stress_test=true" in refusal(training__epochs=21)
    long = TrialConfig.from_dotted({"training.epochs": 21, "training.stress_test": True})
    assert long.training.epochs == 21


@pytest.mark.parametrize(
    ("architecture", "default", "others", "refused"),
    [
        ("hybrid", "plain", [], ["zero_gamma", "layerscale"]),
        ("bounded_hybrid", "plain", [], ["zero_gamma", "layerscale"]),
        ("stable_hybrid", "zero_gamma", ["layerscale"], ["plain"]),
        ("fno", "plain", ["zero_gamma", "layerscale"], []),
        ("my.net.Net", "plain", ["zero_gamma", "layerscale"], []),
    ],
)
def test_each_architecture_has_its_residuals(architecture, default, others, refused):
    assert ModelConfig(architecture=architecture).residual == default
    for residual in others:
        assert ModelConfig(architecture=architecture, residual=residual).residual == residual
    for residual in refused:
        message = refusal(model__architecture=architecture, model__residual=residual)
        assert f"residual={residual} with {architecture}" in message


def test_a_name_that_is_close_to_a_built_in_is_suggested():
    assert "did you mean 'stable_hybrid'?" in refusal(model__architecture="stable_hybird")


@pytest.mark.parametrize(
    ("name", "group", "beside"),
    [
        *((name, "model", {}) for name in ("architecture", "block", "decoder_activation", "head")),
        *((name, "training", {}) for name in ("optimizer", "schedule")),
        ("gradient_clip_algorithm", "execution", {"execution.gradient_clip_val": 1.0}),
    ],
)
def test_a_part_is_built_in_or_of_your_own_and_then_has_options(name, group, beside):
    setting, options = f"{group}.{name}", "model.options.width" if group == "model" else "training.options.width"
    mine = TrialConfig.from_dotted({setting: "my.parts.Part", options: 3, **beside})
    assert mine.own == {setting: "my.parts.Part"}
    assert (mine.model if group == "model" else mine.training).options == {"width": 3}
    for unknown in ("unknown", ".Part", "parts.", "my parts.Part"):
        said = refusal(**{f"{group}__{name}": unknown})
        assert said.startswith(f"{setting}: '{unknown}' is not known; accepted: ")
        assert said.endswith(", or package.module.name of your own")
    assert "options are for" in refusal(**{options.replace(".", "__"): 3})


def test_clipping_of_your_own_without_a_value_would_not_be_used():
    said = refusal(execution__gradient_clip_algorithm="my.parts.Clip")
    assert "my.parts.Clip has no effect with gradient_clip_val=null, which clips nothing: set a number" in said


@pytest.mark.parametrize(
    "settings",
    [
        {"model__max_hidden_channels": 16, "model__hidden_channels": 32},
        {"model__min_resolution": 128},
        {"data__object_size": 70},
        {"data__scan_stride_test": 40},
        {"data__scan_stride_train": 40},
        {"training__warmup_steps": 10},
    ],
)
def test_impossible_combinations_are_refused(settings):
    message = refusal(**settings)
    assert message.split(":")[0] in ("model", "data", "training")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"data__N": 2}, ["data.N=2", "greater than or equal to 4"]),
        ({"model__fno_modes": 0}, ["model.fno_modes=0", "greater than 0"]),
        ({"model__fno_blocks": 0}, ["model.fno_blocks=0", "greater than 0"]),
        ({"model__min_resolution": 1}, ["model.min_resolution=1", "greater than or equal to 2"]),
        ({"model__min_resolution": 5}, ["min_resolution=5 is never met", "64, 32, 16, 8, 4, 2; set one of these"]),
        ({"model__min_resolution": 128}, ["min_resolution=128 is never met", "halving N=64"]),
        ({"data__N": 20, "model__min_resolution": 8}, ["halving N=20 gives 20, 10, 5; set"]),
        ({"model__max_hidden_channels": 16}, ["max_hidden_channels=16 is below hidden_channels=32", "null for no cap"]),
        ({"model__max_hidden_channels": 0}, ["model.max_hidden_channels=0"]),
    ],
)
def test_a_depth_or_size_that_can_not_be_is_refused_with_what_can(settings, said):
    message = refusal(**settings)
    assert all(text in message for text in said)


def test_the_default_floor_is_as_far_as_halving_goes():
    for N in (4, 7, 12, 20, 64, 96):
        assert ModelConfig(N=N).min_resolution == 4
    assert ModelConfig(N=20, min_resolution=5).min_resolution == 5


def test_the_networks_size_follows_the_data():
    assert TrialConfig.from_dotted({"data.N": 32}).model.N == 32
    assert TrialConfig.from_dotted({"data.N": 32, "model.N": 32}).model.N == 32
    assert TrialConfig(data=DataConfig(N=32)).model.N == 32
    made = TrialConfig(data=DataConfig(N=32), model=ModelConfig(architecture="stable_hybrid", fno_blocks=2))
    assert (made.model.N, made.model.residual, made.model.fno_blocks) == (32, "zero_gamma", 2)


def test_the_networks_size_must_be_the_datas():
    assert "model.N=64 but data.N=32" in refusal(data__N=32, model__N=64)
    assert "model.N=32 but data.N=64" in refusal(model__N=32)


def test_a_configuration_does_not_change():
    config = TrialConfig()
    with pytest.raises(pydantic.ValidationError):
        config.training.epochs = 3
    with pytest.raises(pydantic.ValidationError):
        config.training = config.training


def test_flat_and_nested_are_the_same():
    config = TrialConfig.from_dotted(
        {"model.architecture": "my.net.Net", "model.options.width": 3, "execution.gradient_clip_val": 0.01}
    )
    flat = flatten(config)
    assert (flat["model.options.width"], flat["data.probe.radius"]) == (3, 0.25)
    assert TrialConfig.from_dotted(flat) == config
    assert flatten(nest(flat)) == flat


KEYS = st.text("abc", min_size=1, max_size=2)
LEAVES = st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)


@given(st.recursive(st.dictionaries(KEYS, LEAVES), lambda inner: st.dictionaries(KEYS, LEAVES | inner), max_leaves=8))
def test_nesting_undoes_flattening(nested):
    assert nest(flatten(nested)) == nested


def test_later_groups_add_to_earlier_ones_without_changing_them():
    shared = {"width": 3}
    assert nest({"options": shared, "options.depth": 2}) == {"options": {"width": 3, "depth": 2}}
    assert nest({"options.depth": 2, "options": shared}) == {"options": {"width": 3, "depth": 2}}
    assert shared == {"width": 3}


@pytest.mark.parametrize("settings", [{"model": 3, "model.N": 32}, {"model.N": 32, "model": 3}])
def test_a_name_is_a_setting_or_a_group(settings):
    with pytest.raises(ConfigError, match="a group of settings"):
        nest(settings)


def test_the_hash_covers_what_changes_the_numbers():
    base = TrialConfig()
    for name, value in {
        "execution.gradient_clip_val": 0.01,
        "execution.gradient_clip_algorithm": "agc",
        "training.learning_rate": 2e-3,
        "data.seed": 1,
        "data.probe.radius": 0.3,
        "data.probe.sha256": "0" * 64,
        "monitor.after_failure": "continue",
        "vary": ["initialisation"],
    }.items():
        assert TrialConfig.from_dotted({name: value}).config_hash != base.config_hash, name


def test_the_hash_does_not_cover_where_and_on_what():
    base = TrialConfig.from_dotted({"data.probe.sha256": "0" * 64})
    elsewhere = TrialConfig.from_dotted(
        {
            "data.probe.sha256": "0" * 64,
            "data.probe.path": "/elsewhere/probe.npz",
            "execution.device": "cpu",
            "model.checkpoint_blocks": True,
            "monitor.collapsed_spread": 0.3,
        }
    )
    assert elsewhere != base
    assert elsewhere.config_hash == base.config_hash


def test_a_files_digest_is_the_one_that_sha256sum_prints(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_seed_varies_what_vary_names_and_nothing_else():
    config = TrialConfig()
    assert config.stream(1, "initialisation") != config.stream(2, "initialisation")
    assert config.stream(1, "data_order") != config.stream(2, "data_order")
    assert config.stream(1, "initialisation") != config.stream(1, "data_order")
    assert config.data_seed(1) == config.data_seed(2) == 0

    order = TrialConfig(vary=("data_order",))
    assert order.stream(1, "initialisation") == order.stream(2, "initialisation")
    data = TrialConfig(vary=("data",), data=DataConfig(seed=5))
    assert data.data_seed(1) != data.data_seed(2)
    assert TrialConfig(data=DataConfig(seed=5)).data_seed(1) == 5


def test_the_validation_loss_is_named_by_mode():
    names = {TrialConfig.from_dotted({"training.loss": loss}).training.val_loss_name for loss in ("mae", "poisson")}
    assert names == {"mae_val_Amp_loss", "poisson_val_Amp_loss"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model.pre_norm", "rms"),
        ("model.limiter", "decoder"),
        ("model.limiter_tau", 1.0),
        ("model.block", "my.parts.Block"),
        ("training.adam_beta2", 0.95),
        ("code_hash", "0" * 16),
        ("execution.agc_exempt", "decoder"),
    ],
)
def test_optional_parts_rename_a_trial_once_they_are_used(name, value):
    assert TrialConfig.from_dotted({name: value}).config_hash != TrialConfig().config_hash


def test_bounded_hybrid_is_a_preset_whose_parts_can_be_set_one_by_one():
    preset = ModelConfig(architecture="bounded_hybrid")
    assert (preset.pre_norm, preset.limiter, preset.limiter_tau) == ("rms", "both", 3.0)
    assert ModelConfig(architecture="bounded_hybrid", limiter="blocks").limiter == "blocks"
    assert ModelConfig(architecture="hybrid").limiter == "none"


def test_settings_without_an_effect_are_refused():
    assert "no part of that name" in refusal(model__architecture="fno", execution__agc_exempt="decoder")
    assert "no effect with optimizer=sgd" in refusal(training__optimizer="sgd", training__adam_beta2=0.9)
