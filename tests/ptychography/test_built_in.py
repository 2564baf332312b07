"""Every arm of every built-in study trains, as a tiny network."""

import pytest

from fnostab.ptychography import metric_names
from fnostab.ptychography.training.trial import run_trial
from fnostab.record.outcomes import Outcome
from fnostab.study.study import load_study
from fnostab.tasks.registry import built_in_studies

OWN = {"model.fno_blocks", "training.epochs", "training.learning_rate"}  # what studies are about


@pytest.mark.parametrize("name", [name for name in built_in_studies() if name not in ("stage_a", "stage_b")])
def test_its_arms_train(name, tiny_settings, tmp_path):
    small = {key: value for key, value in tiny_settings.items() if key not in OWN}
    study = load_study(name, "small", small | {"training.epochs": 1})
    first = [next(iter(names)) for names in study.file.stressed.values()]  # of a knob's values
    for trial in study.trials(name, tmp_path, seeds=[0], arms=first):
        spec = trial.spec
        outcome = run_trial(spec, trial.directory)
        assert outcome in {Outcome.CONVERGED, Outcome.STAGNATED, Outcome.COLLAPSED, Outcome.EXPLODED}, spec.arm


@pytest.mark.parametrize(
    ("settings", "lacks"),
    [
        ({}, set()),
        ({"data.set_phi": False}, {metric_names.VAL_SSIM_PHASE}),
        ({"data.phase_only": True}, {metric_names.VAL_SSIM_AMP}),  # an amplitude of 1 has an SSIM of 0
    ],
)
def test_quality_is_judged_by_amplitude_phase_and_resolution_as_far_as_the_object_has_them(settings, lacks):
    quality = load_study("stage_a", "small", settings).spec("stage_a").measures
    everything = {metric_names.VAL_SSIM_AMP: 0.02, metric_names.VAL_SSIM_PHASE: 0.02, metric_names.FRC_HALF: 0.05}
    assert {name: measure.margin for name, measure in quality.items()} == {
        name: margin for name, margin in everything.items() if name not in lacks
    }
