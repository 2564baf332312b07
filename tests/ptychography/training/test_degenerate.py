"""No network profits from an output without the object in it: such outputs fail, whatever their loss."""

import lightning
import pytest
import torch
from torch import nn

from fnostab.ptychography import metric_names
from fnostab.ptychography.data import GridLinesData
from fnostab.ptychography.physics.alignment import align
from fnostab.ptychography.physics.evaluation import constant_scores, evaluate
from fnostab.ptychography.physics.twin import twin_share
from fnostab.ptychography.training.module import PtychoModule
from fnostab.ptychography.training.reconstruction import reconstruct, true_patches
from fnostab.ptychography.training.setup import set_up
from fnostab.record.outcome_rules import Validation
from fnostab.record.outcomes import Outcome, judge
from fnostab.study.study import load_study


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """The small profile's."""
    folder = tmp_path_factory.mktemp("data")
    (trial,) = load_study("stage_a", "small", {}).trials("stage_a", folder, arms=["control"], seeds=[0])
    return set_up(trial.spec)


class Fixed(nn.Module):
    """Gives the same patches, in the order of the validation, whatever it sees."""

    def __init__(self, patches):
        super().__init__()
        self.patches, self.given = patches, 0

    def forward(self, amplitude):
        if self.given == len(self.patches):
            self.given = 0
        self.given += len(amplitude)
        return self.patches[self.given - len(amplitude) : self.given]


def output(kind, training):
    """(n, 1, N, N): what a degenerate network gives for the validation patterns."""
    truth = true_patches(training.data.validation, training.config.data.N)[:, None]
    probe, random = training.data.probe, torch.Generator().manual_seed(0)
    if kind == "zero":
        return torch.zeros_like(truth)
    if kind == "constant":
        return torch.full_like(truth, 0.8 - 0.3j)
    if kind == "constant with rounding":
        return 1 + 1e-7 * torch.randn(truth.shape, generator=random) + 0j
    if kind == "twin":  # its exit wave is that of the truth, turned by half and conjugated
        lit = probe != 0
        return (probe * truth).flip(-2, -1).conj() / torch.where(lit, probe, 1) * lit + ~lit
    if kind == "twin of the object":
        return truth.flip(-2, -1).conj()
    if kind == "patches scrambled":
        return truth[torch.randperm(len(truth), generator=random)]
    if kind == "pixels scrambled":
        return truth.flatten(2)[:, :, torch.randperm(truth[0].numel(), generator=random)].view_as(truth)
    if kind == "one patch everywhere":
        return truth[:1].expand_as(truth).clone()
    if kind == "brightness alone":  # each patch is one number, the right one for it
        weight = probe.abs().square()
        return ((weight * truth).sum(dim=(-2, -1), keepdim=True) / weight.sum()).expand_as(truth).clone()
    assert kind == "truth"
    return truth


def validated(kind, training):
    """The metrics that a validation logs of it, as the monitor gets them."""
    module = PtychoModule(Fixed(output(kind, training)), training.data, training.config)
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    batches = GridLinesData(training.data, training.config.training.batch_size, 0)
    (metrics,) = trainer.validate(module, batches, verbose=False)
    return metrics


def outcome(kind, training):
    seen = validated(kind, training)
    loss = seen[training.config.training.val_loss_name]
    names = (
        metric_names.SPREAD,
        metric_names.PATCH_VARIATION,
        metric_names.TWIN_SHARE,
        metric_names.DETAIL_CORRELATION,
    )
    measures = {name: seen[name] for name in names}
    return judge(
        [Validation(step, loss, measures) for step in (10, 20, 30)],
        first_nonfinite_step=None,
        last_step=30,
        baseline=training.constant_loss,
        rules=training.config.monitor.outcome_rules,
    )


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("zero", Outcome.COLLAPSED),
        ("constant", Outcome.COLLAPSED),
        ("constant with rounding", Outcome.COLLAPSED),
        ("one patch everywhere", Outcome.COLLAPSED),
        ("twin", Outcome.STAGNATED),
        ("twin of the object", Outcome.STAGNATED),
        ("patches scrambled", Outcome.STAGNATED),
        ("pixels scrambled", Outcome.EXPLODED),
        ("brightness alone", Outcome.STAGNATED),
        ("truth", Outcome.CONVERGED),
    ],
)
def test_only_the_truth_is_a_success(training, kind, expected):
    assert outcome(kind, training).outcome is expected


def test_the_loss_alone_would_take_the_twin_for_the_truth(training):
    """Why `stagnated` looks at more than the loss, the metric that decides."""
    twin, truth = (validated(kind, training)[training.config.training.val_loss_name] for kind in ("twin", "truth"))
    assert twin == pytest.approx(truth, rel=0.01)
    assert twin < 0.01 * training.constant_loss


def test_brightness_alone_beats_the_constant_without_showing_the_object(training):
    """Why `stagnated` looks at details: by its loss, and by the field's spread, it has learnt something."""
    seen = validated("brightness alone", training)
    assert seen[training.config.training.val_loss_name] < 0.95 * training.constant_loss
    assert seen[metric_names.SPREAD] > 0.5
    assert seen[metric_names.DETAIL_CORRELATION] == pytest.approx(0.49, abs=0.005)
    assert validated("twin", training)[metric_names.DETAIL_CORRELATION] == pytest.approx(0.11, abs=0.005)


def test_no_degenerate_output_comes_near_a_good_ssim(training):
    """The amplitude SSIM of healthy trials of the small profile at learning rate 1e-3 is above 0.8."""
    validation, config = training.data.validation, training.config.data
    kinds = ["zero", "constant", "one patch everywhere", "twin", "patches scrambled", "pixels scrambled"]
    for kind in kinds:
        ((prediction, truth),) = reconstruct(output(kind, training), validation, config)
        scores = evaluate(align(prediction, truth), set_phi=True)
        assert scores.ssim_amp < 0.35, kind
        assert scores.ssim_phase < 0.35, kind
    assert constant_scores(truth, set_phi=True).ssim_amp < 0.35


def test_the_twins_of_a_part_of_the_patches_are_counted(training):
    truth, twins = output("truth", training)[:, 0], output("twin", training)[:, 0]
    mixed = torch.cat([truth[:100], twins[100:]])
    assert twin_share(mixed, truth, training.data.probe) == pytest.approx(224 / 324)


def test_a_network_that_learns_gives_no_twins(trained):
    (shares,) = [trained().curve(metric_names.TWIN_SHARE)]
    assert len(shares) == 3
    assert list(shares.values())[-1] == 0
