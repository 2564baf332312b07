import dataclasses
import math

import numpy as np
import pytest
import torch

from fnostab.errors import DataError
from fnostab.ptychography.physics.alignment import align
from fnostab.ptychography.physics.evaluation import (
    constant_scores,
    detail_correlation,
    evaluate,
    field_spread,
    patch_variation,
    published_scores,
)

NOISE = torch.Generator().manual_seed(1)


@pytest.fixture(scope="module")
def truth(lines) -> torch.Tensor:
    return lines


def _with_contrast(truth, amplitude, phase):
    """The truth with its deviations from a constant scaled."""
    return torch.polar(1 + amplitude * (truth.abs() - 1), phase * truth.angle())


def test_truth_scores_perfectly_whatever_its_scale_and_global_phase(truth):
    scores = evaluate(align(truth * (3 - 4j), truth), set_phi=True)
    assert scores.ssim_amp == pytest.approx(1, abs=1e-5)
    assert scores.ssim_phase == pytest.approx(1, abs=1e-5)
    assert scores.mae_amp == pytest.approx(0, abs=1e-5)
    assert scores.mae_phase == pytest.approx(0, abs=1e-5)


def test_phase_is_scored_only_when_asked(truth):
    scores = evaluate(align(truth, truth), set_phi=False)
    assert scores.mae_phase is None
    assert scores.ssim_phase is None


def test_worse_reconstructions_score_worse(truth):
    noise = torch.randn(truth.shape, dtype=torch.complex64, generator=NOISE)
    good, bad = (evaluate(align(truth + s * noise, truth), set_phi=True) for s in (0.03, 0.3))
    assert 1 > good.ssim_amp > bad.ssim_amp > 0
    assert 1 > good.ssim_phase > bad.ssim_phase > 0
    assert 0 < good.mae_amp < bad.mae_amp
    assert 0 < good.mae_phase < bad.mae_phase


def test_known_amplitude_and_phase_errors(truth):
    checker = 2.0 * (torch.arange(80)[:, None] + torch.arange(80)).remainder(2) - 1  # +1, -1: mean and slope 0
    phase = evaluate(align(truth * torch.polar(torch.ones(80, 80), 0.2 * checker), truth), set_phi=True)
    assert phase.mae_phase == pytest.approx(0.2, rel=1e-2)
    assert phase.mae_amp == pytest.approx(0, abs=1e-5)
    flat = torch.ones(80, 80, dtype=torch.complex64)
    assert evaluate(align(flat + 0.1 * checker, flat), set_phi=False).mae_amp == pytest.approx(0.1, rel=1e-4)


@pytest.mark.parametrize("value", [0, 1, -2 + 1j, 1e-30, 1e30, math.nan, math.inf, complex(0, math.nan)])
def test_constant_zero_and_nonfinite_predictions_never_score_well_and_stay_finite(truth, value):
    prediction = torch.full_like(truth, value)
    scores = evaluate(align(prediction, truth), set_phi=True)
    assert scores.ssim_amp == 0
    assert scores.ssim_phase == 0
    assert all(math.isfinite(score) for score in dataclasses.astuple(scores))
    assert scores.mae_phase == pytest.approx(constant_scores(truth, set_phi=True).mae_phase, rel=1e-4)
    assert field_spread(align(prediction, truth)) == pytest.approx(0, abs=1e-6)
    assert detail_correlation(align(prediction, truth), 17) == 0


def test_nonfinite_prediction_scores_as_a_zero_amplitude(truth):
    spoilt = truth.clone()
    spoilt[0, 0] = math.nan
    zero = evaluate(align(torch.zeros_like(truth), truth), set_phi=True)
    assert evaluate(align(spoilt, truth), set_phi=True) == zero
    assert zero.mae_amp == pytest.approx(1, rel=1e-5)  # the truth's mean amplitude


@pytest.mark.parametrize(("contrast", "counts"), [(0.09, False), (0.11, True), (1.0, True)])
def test_ssim_needs_a_tenth_of_the_truths_contrast(truth, contrast, counts):
    amplitude = evaluate(align(_with_contrast(truth, contrast, 1), truth), set_phi=True)
    phase = evaluate(align(_with_contrast(truth, 1, contrast), truth), set_phi=True)
    assert (amplitude.ssim_amp > 0) == counts
    assert amplitude.ssim_phase > 0.9
    assert (phase.ssim_phase > 0) == counts
    assert phase.ssim_amp > 0.9


def test_constants_raw_ssim_stands_beside(truth):
    constant = constant_scores(truth, set_phi=True)
    assert 0 < constant.ssim_amp < 0.6
    assert 0 < constant.ssim_phase < 0.6
    assert constant.mae_amp == pytest.approx(float((truth.abs() - 1).abs().mean()), rel=1e-4)


def test_truth_without_contrast_gives_no_good_score():
    flat = torch.ones(20, 20, dtype=torch.complex64)
    for prediction in (flat, torch.randn(20, 20, dtype=torch.complex64, generator=NOISE)):
        scores = evaluate(align(prediction, flat), set_phi=True)
        assert (scores.ssim_amp, scores.ssim_phase) == (0, 0)
        assert field_spread(align(prediction, flat)) == 0


def test_image_smaller_than_the_ssim_window_is_refused():
    with pytest.raises(DataError, match="7 x 7"):
        evaluate(align(torch.ones(6, 9), torch.ones(6, 9)), set_phi=False)


def test_spread_is_the_ratio_of_contrasts_whatever_the_scale_and_the_phase_plane(truth):
    flat = truth.abs().to(torch.complex64)
    plane = torch.polar(torch.ones(80, 80), 0.05 * torch.arange(80.0) - 1.0)
    assert field_spread(align(5 * plane * _with_contrast(flat, 0.3, 0), flat)) == pytest.approx(0.3, rel=1e-4)
    assert field_spread(align(3 * plane, truth)) == pytest.approx(0, abs=1e-5)


def test_an_object_of_phase_alone_that_was_found_is_neither_constant_nor_unlearnt(lines):
    """Its amplitude does not vary at all: what was judged by the amplitude took it for a collapse."""
    truth = torch.polar(torch.ones(80, 80), lines.angle())
    found = -2j * truth
    assert field_spread(align(found, truth)) == pytest.approx(1, rel=1e-5)
    assert detail_correlation(align(found, truth), 17) == pytest.approx(1, rel=1e-5)
    patches = torch.stack([found[k : k + 32, k : k + 32] for k in range(0, 48, 8)])
    assert patch_variation(patches) > 0.1


def test_details_are_correlated_as_far_as_they_are_right(truth):
    assert detail_correlation(align(truth.conj() * 2j, truth.conj()), 17) == pytest.approx(1, rel=1e-5)
    noise = torch.randn(truth.shape, dtype=torch.complex64, generator=NOISE)
    good, bad = (detail_correlation(align(truth + s * noise, truth), 17) for s in (0.1, 1.0))
    assert 1 > good > 0.8 > bad > 0
    assert detail_correlation(align(noise, truth), 17) < 0.1
    blurred = torch.nn.functional.avg_pool2d(truth.abs()[None, None], 31, 1, 15, count_include_pad=False)[0, 0]
    assert detail_correlation(align(blurred + 0j, truth), 17) < 0.6  # brightness without details
    assert detail_correlation(align(truth, torch.ones_like(truth)), 17) == 0


def test_patches_that_differ_by_a_phase_factor_are_alike():
    """Diffraction can't tell them apart."""
    patch = torch.randn(8, 8, dtype=torch.complex64, generator=NOISE)
    factors = torch.polar(torch.ones(20), torch.linspace(-3, 3, 20))
    assert patch_variation(factors[:, None, None] * patch) == pytest.approx(0, abs=1e-6)
    other = patch * torch.polar(torch.ones(8, 8), torch.rand(8, 8, generator=NOISE))
    assert patch_variation(torch.stack([patch, other])) > 0.05  # amplitudes are equal


def test_a_conjugated_tensor_is_scored_as_any_other(truth):
    assert evaluate(align(truth.conj(), truth), set_phi=True) == evaluate(
        align(truth.conj().clone().resolve_conj(), truth), set_phi=True
    )
    assert evaluate(align(truth, truth.conj()), set_phi=True).ssim_amp == pytest.approx(1, abs=1e-5)


def test_patch_variation():
    patches = torch.ones(2, 4, 4, dtype=torch.complex64)
    patches[1] = 3j
    assert patch_variation(patches) == pytest.approx(0.5)  # (1, 3): deviation 1, mean 2
    structured_but_alike = torch.rand(4, 4, generator=NOISE).expand(9, 1, 4, 4)
    assert patch_variation(structured_but_alike) == pytest.approx(0, abs=1e-12)
    for value in (0.0, math.nan, math.inf):
        assert patch_variation(torch.full((3, 4, 4), value)) == 0
    assert isinstance(patch_variation(patches), float)
    assert not np.isnan(patch_variation(patches[:1]))


def test_psnr_is_the_truths_range_over_the_error_in_decibels(truth):
    checker = 2.0 * (torch.arange(80)[:, None] + torch.arange(80)).remainder(2) - 1  # +1, -1: mean and slope 0
    scores = published_scores(align(truth * torch.polar(1 + 0 * checker, 0.01 * checker), truth), set_phi=True)
    assert scores.psnr_phase == pytest.approx(20 * math.log10(float(np.ptp(truth.angle())) / 0.01), abs=0.1)
    assert scores.psnr_amp == pytest.approx(120, abs=20)  # rounding
    assert published_scores(align(truth, truth), set_phi=False).psnr_phase is None


def test_psnr_of_an_amplitude_that_does_not_vary_is_0(truth):
    phase = truth / truth.abs()  # of modulus 1 but for rounding
    scores = published_scores(align(phase, phase), set_phi=True)
    assert scores.psnr_amp == 0
    assert scores.psnr_phase > 100


def test_the_published_phase_ssim_is_kind_to_a_constant(truth):
    """It maps all of a turn to 0 to 1, ours the range of the truth."""
    assert published_scores(align(torch.ones_like(truth), truth), set_phi=True).ssim_phase > 0.7
    assert constant_scores(truth, set_phi=True).ssim_phase < 0.3
    assert published_scores(align(1j * truth, truth), set_phi=True).ssim_phase == pytest.approx(1, abs=1e-4)
