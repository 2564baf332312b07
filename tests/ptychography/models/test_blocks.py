import pytest
import torch
from torch import nn

from fnostab.ptychography.models import ResidualBlock, initialise_, residual_blocks
from fnostab.ptychography.models.norms import InstanceNorm2d
from fnostab.ptychography.settings import ModelConfig


def block(residual: str, **settings: float) -> ResidualBlock:
    torch.manual_seed(0)
    return ResidualBlock(ModelConfig(architecture="fno", residual=residual, **settings), 8, modes=4, resolution=16)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(1))


def test_a_zero_gamma_block_starts_as_the_identity(x: torch.Tensor) -> None:
    assert torch.equal(block("zero_gamma")(x), x)


def test_zero_gamma_survives_reinitialisation(x: torch.Tensor) -> None:
    reset = block("zero_gamma")
    with torch.no_grad():
        reset.gain.weight.fill_(1)
    initialise_(reset, seed=3)
    assert torch.equal(reset(x), x)


def test_a_layerscale_block_starts_within_its_factor_of_the_identity(x: torch.Tensor) -> None:
    """The norm gives each channel a mean square of 1, so the branch's is the factor squared."""
    branch = block("layerscale", layerscale_init=1e-3)(x) - x
    torch.testing.assert_close(branch.square().mean().sqrt(), torch.tensor(1e-3), rtol=0.01, atol=0)


def test_a_plain_block_adds_gelu_of_both_convolutions(x: torch.Tensor) -> None:
    plain = block("plain")
    branch = nn.functional.gelu(plain.spectral(x) + plain.conv(x))
    torch.testing.assert_close(plain(x), x + branch)
    assert branch.mean() > 0.1  # the drift hypothesis


@pytest.mark.parametrize("residual", ["zero_gamma", "layerscale"])
def test_normalised_branches_do_not_drift(residual: str, x: torch.Tensor) -> None:
    centred = block(residual)
    with torch.no_grad():
        next(centred.gain.parameters()).fill_(1)
    assert (centred(x) - x).mean().abs() < 1e-6


def test_the_first_gradient_of_a_zero_gamma_block_reaches_its_gain_alone(x: torch.Tensor) -> None:
    start = block("zero_gamma")
    start(x).square().sum().backward()
    assert start.gain.weight.grad.abs().min() > 0
    assert start.conv.weight.grad.abs().max() == 0
    assert start.spectral.weight.grad.abs().max() == 0


def test_the_first_gradient_of_a_layerscale_block_reaches_everything(x: torch.Tensor) -> None:
    start = block("layerscale")
    start(x).pow(3).sum().backward()
    for name, parameter in start.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_gain_magnitude_is_the_mean_absolute_gain() -> None:
    zero_gamma = block("zero_gamma")
    assert zero_gamma.gain_magnitude() == 0
    with torch.no_grad():
        zero_gamma.gain.weight[:4] = -1
    assert zero_gamma.gain_magnitude() == 0.5
    assert block("layerscale", layerscale_init=0.25).gain_magnitude() == 0.25
    assert block("plain").gain_magnitude() is None


def test_blocks_are_found_by_name() -> None:
    network = nn.Sequential(nn.Conv2d(1, 8, 1), block("plain"), nn.Sequential(block("layerscale")))
    assert list(residual_blocks(network)) == ["1", "2.0"]


def test_the_norm_is_torchs_instance_norm(x: torch.Tensor) -> None:
    norm = InstanceNorm2d(8)
    with torch.no_grad():
        norm.weight.copy_(torch.arange(8.0))
        norm.bias.copy_(torch.arange(8.0) / 10)
    expected = nn.functional.instance_norm(x, weight=norm.weight, bias=norm.bias)
    torch.testing.assert_close(norm(x), expected)


def test_the_norm_keeps_its_digits_where_the_mean_is_large() -> None:
    """As it is in blocks that drift. Torch's kernel for channels last loses all of them here."""
    x = 100 + 0.1 * torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = nn.functional.instance_norm(x.double())
    y = InstanceNorm2d(8)(x.to(memory_format=torch.channels_last)).detach()
    assert (y - expected).norm() <= 1e-3 * expected.norm()
