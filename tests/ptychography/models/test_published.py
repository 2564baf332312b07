"""The published network: its parameters, counted without memory, and what its layers compute."""

import numpy as np
import pytest
import torch

from fnostab.errors import ModelError
from fnostab.ptychography.models import build_generator, parameter_count
from fnostab.ptychography.models.published_spectral import PublishedSpectralConv2d
from fnostab.ptychography.settings import ModelConfig, TrialConfig
from fnostab.ptychography.training.step_cost import trace


def on_meta(**settings):
    with torch.device("meta"):
        network = build_generator(ModelConfig(architecture="published_hybrid", **settings))
    assert all(parameter.is_meta for parameter in network.parameters())
    return network


@pytest.mark.parametrize(("blocks", "published"), [(4, 17_202_402), (6, 276_075_746), (8, 4_417_975_522)])
def test_it_has_the_published_number_of_parameters(blocks, published):
    network = on_meta(fno_blocks=blocks)
    assert sum(parameter.numel() for parameter in network.parameters()) == published  # a complex one counts once
    spectral = sum(parameter.numel() for parameter in network.parameters() if parameter.is_complex())
    assert parameter_count(network) == published + spectral


def test_one_weight_of_eight_blocks_is_the_allocation_that_failed():
    network = on_meta(fno_blocks=8)
    assert max(parameter.nbytes for parameter in network.parameters()) == 18 * 2**30
    assert max(p.nbytes for p in on_meta(fno_blocks=8, max_hidden_channels=512).parameters()) < 2**30


def test_eight_blocks_need_a_pattern_that_can_be_halved_seven_times():
    settings = {"model.architecture": "published_hybrid", "model.fno_blocks": 8, "model.hidden_channels": 1}
    with pytest.raises(ModelError, match=r"8 blocks halve N=64 7 times, which is impossible: lower model\.fno_blocks"):
        trace(TrialConfig.from_dotted(settings))
    larger = trace(TrialConfig.from_dotted(settings | {"data.N": 128}))
    assert larger is not None


def test_other_networks_halve_no_further_than_they_can():
    with pytest.raises(ValueError, match="min_resolution=null halves N=64 7 times, which is impossible"):
        ModelConfig(architecture="hybrid", fno_blocks=8, min_resolution=None)
    whole = ModelConfig(architecture="hybrid", fno_blocks=7, min_resolution=None, hidden_channels=1)
    assert [block.spectral.resolution for block in build_generator(whole).encoder] == [64, 32, 16, 8, 4, 2, 1]


def test_the_parts_of_the_preset_are_settings_of_any_hybrid():
    plain = ModelConfig(architecture="hybrid", N=16, hidden_channels=2, fno_blocks=3, fno_modes=4)
    assert (plain.down_kernel, plain.spectral_weights, plain.min_resolution) == (3, "existing", 4)
    network = build_generator(plain.model_copy(update={"down_kernel": 2}))
    assert [down.weight.shape[2:] for down in network.down] == [(2, 2), (2, 2)]
    assert network(torch.rand(1, 1, 16, 16)).shape == (1, 1, 16, 16)


@pytest.mark.parametrize(("N", "modes"), [(16, 5), (4, 12)])
def test_the_spectral_layer_mixes_the_modes_of_one_row_sign(N, modes):
    torch.manual_seed(0)
    layer = PublishedSpectralConv2d(2, 3, modes)
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.complex128))
    x = torch.randn(1, 2, N, N, dtype=torch.float64)
    before, after = (np.fft.fft2(image.detach().numpy()[0]) for image in (x, layer(x)))
    weight = layer.weight.detach().numpy()
    rows, columns = min(modes, N), min(modes, N // 2 + 1)
    for row in range(N):
        for column in range(1, N // 2):  # those whose conjugates are not among them
            kept = row < rows and column < columns
            mixed = before[:, row, column] @ weight[:, :, row, column] if kept else np.zeros(3)
            np.testing.assert_allclose(after[:, row, column], mixed, atol=1e-10)


def test_it_trains_and_weights_of_modes_that_do_not_exist_stay():
    torch.manual_seed(0)
    config = ModelConfig(architecture="published_hybrid", N=16, hidden_channels=2, fno_blocks=4, fno_modes=4)
    network = build_generator(config)
    network(torch.rand(2, 1, 16, 16)).abs().square().mean().backward()
    deepest = network.encoder[3].spectral.weight.grad  # at 2 x 2: 2 rows and 2 columns
    assert deepest[..., :2, :2].abs().min() > 0
    assert not deepest[..., 2:, :].any()
    assert not deepest[..., 2:].any()
