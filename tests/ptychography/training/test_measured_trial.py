"""A trial of a measured scan, with a reference and without."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_scan import SIDE, simulated
from trials import Trained, make_spec

from fnostab.errors import ConfigError
from fnostab.ptychography import metric_names
from fnostab.ptychography.scans.scan_file import Scan, write_scan
from fnostab.ptychography.task import Ptychography
from fnostab.ptychography.training.reconstruction import reconstruct, score, true_patches
from fnostab.ptychography.training.setup import set_up
from fnostab.ptychography.training.trial import run_trial
from fnostab.record import names
from fnostab.record.outcomes import Outcome

pytest.importorskip("h5py")
NETWORK = {
    "model.hidden_channels": 4,
    "model.fno_blocks": 2,
    "model.fno_modes": 4,
    "training.epochs": 2,
    "training.batch_size": 8,
    "execution.device": "cpu",
    "monitor.stagnated_detail": 1e-9,
}


@pytest.fixture(scope="module")
def scan():
    small = simulated(extent=84)
    mask = np.ones((SIDE, SIDE), bool)
    mask[3, 4] = False
    return Scan(small.counts.astype(np.float32), "counts", small.probe, small.corners, mask, small.object)


def spec_of(scan, folder, **settings):
    path = folder / "scan.h5"
    write_scan(scan, path)
    resolved = Ptychography().resolve([NETWORK | {"data.path": str(path)} | settings], "small")
    spec = make_spec(folder / "shared")
    return spec.model_copy(update={"settings": resolved})


def trained(spec, folder):
    return Trained(run_trial(spec, folder / "trial"), folder / "trial")


@pytest.mark.parametrize("path", [1000.0, True, False, 0, ["a"]])  # what YAML makes of 1e3, on, off, 0 and [a]
def test_a_path_that_is_no_text_is_refused(path):
    with pytest.raises(ConfigError, match=r"expected the path of a scan file; put \./ before a name that YAML reads"):
        Ptychography().resolve([{"data.path": path}], "small")


def test_the_size_follows_the_scan_and_the_profile_s_simulation_is_left_out(scan, tmp_path):
    settings = spec_of(scan, tmp_path).settings
    assert (settings["data.N"], settings["model.N"], settings["data.set_phi"]) == (SIDE, SIDE, True)
    assert settings["data.object_size"] == 392
    assert settings["training.learning_rate"] == 1.5e-2
    assert len(settings["data.sha256"]) == 64


def test_a_trial_is_judged_against_the_reference(scan, tmp_path):
    trial = trained(spec_of(scan, tmp_path), tmp_path)
    assert trial.outcome in (Outcome.CONVERGED, Outcome.STAGNATED)
    assert 0 < trial.value(names.NOISE_FLOOR_LOSS) < trial.value(names.CONSTANT_LOSS)
    for name in (metric_names.SPREAD, metric_names.VAL_SSIM_AMP, metric_names.VAL_SSIM_PHASE, metric_names.TWIN_SHARE):
        assert len(trial.curve(name)) == 2
    assert {metric_names.SSIM_AMP, metric_names.FRC_HALF} <= {name for name, _, _ in trial.points}
    figures = {event["path"] for event in trial.events(names.ARTIFACT_EVENT)}
    assert {"artifacts/reconstruction_0.png", "artifacts/reconstruction_1.png"} <= figures  # whole scan, test area
    (dataset,) = trial.events(names.DATASET_EVENT)
    assert dataset["name"] == "measured_scan"


def test_without_a_reference_the_loss_decides_and_what_is_not_judged_is_named(scan, tmp_path):
    trial = trained(spec_of(replace(scan, object=None), tmp_path), tmp_path)
    recorded = {name for name, _, _ in trial.points}
    assert not recorded & {
        metric_names.SPREAD,
        metric_names.VAL_SSIM_AMP,
        metric_names.SSIM_AMP,
        metric_names.DETAIL_CORRELATION,
    }
    assert {metric_names.PATCH_VARIATION, metric_names.FRC_HALVES, names.NOISE_FLOOR_LOSS} <= recorded
    assert any(metric_names.DETAIL_CORRELATION in reason for reason in trial.final["not_judged"])


def test_the_true_patches_stitch_to_the_reference(scan, tmp_path):
    training = set_up(spec_of(scan, tmp_path))
    split = training.data.test
    patches = true_patches(split, SIDE)[:, None]
    ((ours, reference),) = reconstruct(patches, split, training.config.data, training.data.probe)
    assert ours.shape == reference.shape
    assert min(ours.shape) >= 7
    assert (ours - reference).abs().mean() < 0.1 * reference.abs().mean()  # what two linear interpolations blur


def test_scores_do_not_depend_on_the_arbitrary_phase_and_ramp_of_the_reference(scan, tmp_path):
    training = set_up(spec_of(scan, tmp_path))
    split = training.data.test
    whole, index = split.positions[::2].round(), split.image_index[::2]
    split = replace(split, positions=whole, image_index=index)  # true patches stitch exactly, and leave gaps
    rows, columns = torch.meshgrid(*map(torch.arange, split.objects.shape[1:]), indexing="ij")

    def scores(reference, patches):
        pairs = reconstruct(patches, replace(split, objects=reference), training.config.data, training.data.probe)
        return score(pairs, training.config.data)

    patches = true_patches(split, SIDE)[:, None]
    patches = patches + torch.randn(patches.shape, generator=torch.Generator().manual_seed(0))
    before = scores(split.objects, patches)
    assert 0.1 < before[metric_names.SSIM_PHASE] < 0.9
    assert abs(before[metric_names.CONSTANT_SSIM_PHASE]) < 0.01
    for phase in (3 + 0 * rows, 0.05 * rows - 0.02 * columns, 2 - 0.3 * rows + 0.3 * columns):  # the last one wraps
        ramped = split.objects * torch.polar(torch.ones(rows.shape), phase.float())
        assert scores(ramped, patches) == pytest.approx(before, abs=1e-3)
        perfect = scores(ramped, true_patches(replace(split, objects=ramped), SIDE)[:, None])
        assert perfect[metric_names.SSIM_PHASE] == pytest.approx(1, abs=1e-3)


def test_masked_pixels_have_no_say_in_a_loss(scan, tmp_path):
    module = set_up(spec_of(scan, tmp_path)).module
    ours = torch.rand(3, 1, SIDE, SIDE)
    other = ours.clone()
    other[..., 3, 4] = 1e6
    assert module.loss(other, ours) == 0
    other[..., 3, 5] += 1
    assert module.loss(other, ours) > 0


def test_poisson_needs_counts(scan, tmp_path):
    with pytest.raises(ConfigError, match=r"needs photon counts, .* holds intensity"):
        spec_of(replace(scan, kind="intensity"), tmp_path, **{"training.loss": "poisson"})
    spec_of(scan, tmp_path, **{"training.loss": "poisson"})
