import numpy as np
import pytest
import torch

from fnostab.errors import ModelError
from fnostab.ptychography.models import SpectralConv2d


def dense_fft_oracle(x: np.ndarray, weight: np.ndarray, modes: int) -> np.ndarray:
    """The same convolution by NumPy's full complex FFT in double precision.

    A real image's spectrum is Hermitian, so the half with non-negative column frequencies stands for
    all: its columns count twice, but for the zero and the Nyquist column, and the real part is taken.
    """
    size = x.shape[-1]
    frequency = np.rint(np.fft.fftfreq(size) * size).astype(int)
    rows = [i for i, k in enumerate(frequency) if 2 * modes >= size or -modes <= k < modes]
    columns = range(min(modes, size // 2 + 1))
    spectrum = np.fft.fft2(x)
    mixed = np.zeros((x.shape[0], weight.shape[1], size, size), complex)
    for a, i in enumerate(rows):
        for j in columns:
            count = 1 if j == 0 or 2 * j == size else 2
            mixed[:, :, i, j] = count * spectrum[:, :, i, j] @ weight[:, :, a, j]
    return np.fft.ifft2(mixed).real


def complex_weight(layer: SpectralConv2d) -> np.ndarray:
    """(in_channels, out_channels, rows, columns)."""
    real, imaginary = layer.weight.detach().double().numpy().transpose(3, 2, 4, 1, 0)
    return real + 1j * imaginary


def layer_and_input(resolution: int, modes: int = 12) -> tuple[SpectralConv2d, torch.Tensor]:
    torch.manual_seed(resolution)
    return SpectralConv2d(2, 3, modes, resolution), torch.randn(2, 2, resolution, resolution)


@pytest.mark.parametrize("modes", [1, 3, 12])
@pytest.mark.parametrize("resolution", [64, 33, 32, 16, 9, 8, 7, 5, 4, 3, 2, 1])
def test_equals_a_dense_fft_in_double_precision(resolution: int, modes: int) -> None:
    layer, x = layer_and_input(resolution, modes)
    expected = dense_fft_oracle(x.double().numpy(), complex_weight(layer), modes)
    output = layer(x)
    assert output.dtype == torch.float32
    assert np.linalg.norm(output.detach().numpy() - expected) <= 1e-5 * np.linalg.norm(expected)
    np.testing.assert_allclose(output.detach().numpy(), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("resolution", "modes", "rows", "columns"),
    [(64, 12, 24, 12), (32, 12, 24, 12), (16, 12, 16, 9), (8, 12, 8, 5), (4, 12, 4, 3), (2, 12, 2, 2), (1, 12, 1, 1)],
)
def test_only_modes_that_exist_are_allocated(resolution: int, modes: int, rows: int, columns: int) -> None:
    layer = SpectralConv2d(2, 3, modes, resolution)
    assert layer.weight.shape == (columns, rows, 2, 2, 3)
    assert layer.weight.dtype == torch.float32


@pytest.mark.parametrize("resolution", [64, 16, 7, 4])
def test_every_allocated_mode_gets_a_gradient(resolution: int) -> None:
    layer, x = layer_and_input(resolution)
    layer(x).square().sum().backward()
    assert layer.weight.grad is not None
    assert (layer.weight.grad.norm(dim=3) > 0).all()


@pytest.mark.parametrize("row_frequency", [3, -3])
def test_waves_of_either_row_sign_pass(row_frequency: int) -> None:
    """Two diagonals, mirror images of each other: one sign of the rows would see only one of them."""
    layer = SpectralConv2d(1, 1, 4, 32)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0], [0.0]]).expand_as(layer.weight))
    n = torch.arange(32) * 2 * torch.pi / 32
    wave = torch.cos(row_frequency * n[:, None] + 2 * n[None, :])[None, None]
    torch.testing.assert_close(layer(wave), wave, atol=1e-5, rtol=0)


@pytest.mark.parametrize("frequencies", [(0, 5), (5, 0), (-6, 1)])
def test_waves_above_the_kept_modes_are_removed(frequencies: tuple[int, int]) -> None:
    layer = SpectralConv2d(1, 1, 4, 32)
    n = torch.arange(32) * 2 * torch.pi / 32
    wave = torch.cos(frequencies[0] * n[:, None] + frequencies[1] * n[None, :])[None, None]
    torch.testing.assert_close(layer(wave), torch.zeros_like(wave), atol=1e-5, rtol=0)


@pytest.mark.parametrize("resolution", [16, 9])
def test_commutes_with_circular_shifts(resolution: int) -> None:
    layer, x = layer_and_input(resolution, modes=3)
    shifted = layer(x.roll((2, 5), dims=(-2, -1)))
    torch.testing.assert_close(shifted, layer(x).roll((2, 5), dims=(-2, -1)), atol=1e-5, rtol=1e-4)


def test_gradient_agrees_with_finite_differences() -> None:
    layer = SpectralConv2d(2, 2, 2, 5).double()
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
    assert torch.autograd.gradcheck(
        lambda w: torch.func.functional_call(layer, {"weight": w}, (x.detach(),)), (layer.weight,)
    )


def test_white_noise_keeps_its_variance_if_all_modes_are_kept() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 64, 16, 16)
    assert SpectralConv2d(64, 64, 12, 16)(x).var().item() == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize("shape", [(1, 2, 8, 8), (1, 3, 16, 16), (2, 16, 16)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    layer = SpectralConv2d(2, 3, 4, 16)
    with pytest.raises(ModelError, match=r"expected \(B, 2, 16, 16\), got \("):
        layer(torch.zeros(shape))
