import numpy as np
import pytest
import torch

from fnostab.monitor.layer_measures import dead_share, low_frequency_share, real_values, rms


def wave(k_row, k_column, n=16):
    """A plane wave with whole periods along both axes, (1, 1, n, n)."""
    y, x = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    return torch.cos(2 * torch.pi * (k_row * y + k_column * x) / n)[None, None].float()


def test_root_mean_square_of_both_parts_of_complex_numbers():
    assert float(rms(real_values(torch.tensor([3 + 4j])))) == pytest.approx(12.5**0.5)


@pytest.mark.parametrize(("k", "low"), [((0, 1), 1), ((2, 2), 1), ((-2, 1), 1), ((3, 0), 0), ((0, 3), 0), ((8, 8), 0)])
def test_a_wave_is_low_up_to_a_quarter_of_nyquist_on_both_axes(k, low):
    assert float(low_frequency_share(wave(*k))) == pytest.approx(low, abs=1e-5)


def test_powers_add_and_the_mean_does_not_count():
    both = 1000 + 3 * wave(1, 1) + wave(0, 7)
    assert float(low_frequency_share(both)) == pytest.approx(0.9, abs=1e-3)


@pytest.mark.parametrize(("side", "share"), [(64, 0.07), (8, 0.13), (4, 0.53)])
def test_white_noise(side, share):
    noise = torch.randn(64, 8, side, side, generator=torch.Generator().manual_seed(0))
    assert float(low_frequency_share(noise)) == pytest.approx(share, abs=0.01)


def test_the_share_is_that_of_numpys_spectrum():
    images = np.random.default_rng(0).normal(size=(2, 3, 8, 24))
    power = np.abs(np.fft.fft2(images - images.mean(axis=(-2, -1), keepdims=True))) ** 2
    k_rows, k_columns = (np.abs(np.fft.fftfreq(n, 1 / n)) for n in (8, 24))
    low = power[..., k_rows <= 1, :][..., k_columns <= 3].sum() / power.sum()
    assert float(low_frequency_share(torch.tensor(images).float())) == pytest.approx(low, rel=1e-5)


def test_what_has_no_frequencies():
    assert low_frequency_share(torch.ones(2, 3)) is None
    assert low_frequency_share(torch.ones(2, 3, 2, 2)) is None
    assert torch.isnan(low_frequency_share(torch.ones(2, 3, 8, 8)))


def test_a_channel_is_dead_if_it_says_nothing_of_the_input():
    inputs = torch.linspace(-1, 1, 32).reshape(2, 1, 4, 4)
    channels = torch.cat([inputs, inputs - 10, inputs - 100, inputs + 100], dim=1)
    assert float(dead_share(torch.nn.functional.gelu(channels))) == 0.5
    assert float(dead_share(torch.full((2, 3, 4, 4), 7.0))) == 1
    assert dead_share(torch.ones(3)) is None
