"""Every arm of every built-in study trains, as a tiny network."""

import pytest

from fnostab.ptychography.training.trial import run_trial
from fnostab.record.outcomes import Outcome
from fnostab.study.study import built_in_studies, load_study

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
