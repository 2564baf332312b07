import pytest
import torch

from fnostab.ptychography.physics.detector import amplitude_of, detect, photon_scale


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_scaled_patterns_hold_the_photon_budget_on_average():
    intensity = torch.rand(50, 1, 8, 8, generator=_generator())
    scale = photon_scale(intensity, 1e9)
    assert (scale * intensity.double()).sum(dim=(-2, -1)).mean().item() == pytest.approx(1e9)


@pytest.mark.parametrize("rate", [0.0, 0.5, 30.0, 2.4e5, 1e8])
def test_counts_are_poisson(rate):
    n = 20_000
    counts = detect(torch.full((n,), rate), 1.0, _generator())
    assert torch.equal(counts, counts.round())
    # five standard errors of the mean and of the variance of Poisson counts
    assert counts.mean().item() == pytest.approx(rate, abs=5 * (rate / n) ** 0.5)
    assert counts.var().item() == pytest.approx(rate, abs=5 * ((rate + 2 * rate**2) / n) ** 0.5)


def test_counts_beyond_float32_stay_whole_and_distinct():
    counts = detect(torch.full((10_000,), 1e8), 1.0, _generator())
    assert (counts % 2).mean().item() == pytest.approx(0.5, abs=0.05)  # float32 could hold multiples of 8 only


def test_amplitude_is_the_root_of_the_intensity_up_to_photon_noise():
    intensity = torch.rand(1000, generator=_generator()) + 0.5
    amplitude = amplitude_of(detect(intensity, 1e8, _generator(1)), 1e8)
    assert amplitude.dtype == torch.float32
    torch.testing.assert_close(amplitude, intensity.sqrt(), rtol=0, atol=5 * 0.5 / 1e8**0.5)


def test_noise_follows_from_its_generator():
    rate = torch.full((100,), 50.0)
    assert torch.equal(detect(rate, 1.0, _generator(3)), detect(rate, 1.0, _generator(3)))
    assert not torch.equal(detect(rate, 1.0, _generator(3)), detect(rate, 1.0, _generator(4)))
