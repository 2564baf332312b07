"""Whoever gives a setting that changes nothing is told so."""

import pytest
import torch

from fnostab.ptychography.models import build_initialised
from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.without_effect import unread_settings
from fnostab.study.study import load_study
from fnostab.tasks.registry import built_in_studies

FNO = {"model.architecture": "fno"}
CLIPPED = {"execution.gradient_clip_val": 1.0}
OWN = {"model.architecture": "nets.Mine", "training.optimizer": "parts.mine"}


def lines(name="stage_a", profile="small", **options):
    study = load_study(name, profile, {name.replace("__", "."): value for name, value in options.items()})
    return study.task.notices(study, list(study.arms))


@pytest.mark.parametrize(
    ("settings", "unread"),
    [
        (FNO, {"model.max_hidden_channels", "model.min_resolution", "model.down_kernel"}),
        ({"model.residual": "layerscale", "model.architecture": "stable_hybrid"}, {"model.limiter_tau"}),
        ({"model.architecture": "bounded_hybrid"}, {"model.layerscale_init"}),
        ({"training.optimizer": "sgd", **CLIPPED}, {"execution.agc_exempt"}),
        ({"execution.gradient_clip_algorithm": "agc", **CLIPPED}, {"training.momentum"}),
        ({}, {"execution.gradient_clip_algorithm", "execution.agc_exempt"}),
        ({"data.object.kind": "siemens_star"}, {"data.n_lines"}),
        ({"data.object.path": "o.npz", "data.object.sha256": "0"}, {"data.n_lines", "data.object.kind"}),
        ({"data.probe.path": "p.npz"}, {"data.probe.radius", "data.probe.curvature_rad"}),
    ],
)
def test_what_is_not_read(settings, unread):
    assert unread <= unread_settings(TrialConfig.from_dotted(settings)).keys()


def test_what_a_part_of_your_own_may_read_is_taken_as_read():
    found = unread_settings(TrialConfig.from_dotted(OWN))
    assert not any(name.startswith(("model.", "training.")) for name in found)


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("model.limiter_tau", 1.0, 2.0),
        ("model.layerscale_init", 0.1, 0.2),
        ("model.max_hidden_channels", 4, 8),
        ("model.down_kernel", 2, 3),
    ],
)
def test_a_network_is_the_same_whatever_it_does_not_read(name, one, other):
    small = FNO | {"data.N": 16, "data.scan_stride_test": 5, "model.hidden_channels": 4, "model.fno_blocks": 2}
    assert name in unread_settings(TrialConfig.from_dotted(small))
    networks = [build_initialised(TrialConfig.from_dotted(small | {name: value}).model, 0) for value in (one, other)]
    first, second = (network.state_dict() for network in networks)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("profile", ["small", "full"])
@pytest.mark.parametrize("name", built_in_studies())
def test_the_built_in_studies_give_nothing_in_vain(name, profile):
    assert lines(name, profile) == []


def test_each_setting_is_named_once_with_its_arms(tmp_path, caplog):
    settings = {"model.limiter_tau": 2.0, "execution.agc_exempt": "decoder", "data.seed": 3, "training.momentum": 0.9}
    study = load_study("stage_a", "small", settings)
    study.trials("stage_a", tmp_path, seeds=[0, 1])
    assert caplog.messages == [
        "model.limiter_tau=2.0 has no effect in any arm, with model.limiter=none",
        "execution.agc_exempt=decoder has no effect in arms control, arch_fix, with execution.gradient_clip_val=null",
        "execution.agc_exempt=decoder has no effect in arm cure, with execution.gradient_clip_algorithm=norm",
    ]


def test_a_setting_of_the_profile_is_nobodys_oversight():
    kind = {"data__object__kind": "dead_leaves"}
    assert lines(**kind) == []
    said = lines(**kind, data__n_lines=30)
    assert said == ["data.n_lines=30 has no effect in any arm, with data.object.kind=dead_leaves"]
