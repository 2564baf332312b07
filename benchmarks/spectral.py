"""Time and error of the spectral convolution by matrices and by FFT, at the sizes of the built-in networks.

    python -m benchmarks --only spectral            # all sizes, and more modes than any network has
    python -m benchmarks --only spectral --quick    # the small profile, and the full one at depth 4

The forward pass alone and with the backward pass are timed on a GPU if there is one, else as processor time of one CPU
thread. Both forms alternate. The error is relative to the FFT in float64.
"""

from functools import partial
from itertools import product

import torch

from benchmarks.timing import compared, in_turns, medians, row
from fnostab.ptychography.models import SpectralConv2d, build_generator, residual_blocks
from fnostab.ptychography.models.fourier import FFTFourier, MatrixFourier
from fnostab.ptychography.settings import ModelConfig

FORMS = {"matrices": MatrixFourier, "fft": FFTFourier}
BATCH = 16
PROFILES = {"small": {"N": 32, "hidden_channels": 8, "fno_modes": 8}, "full": {"N": 64, "fno_modes": 12}}
DEPTHS = {"small": (3, 4, 6), "full": (4, 6, 8)}  # with at most 512 channels, as in deep studies
CROSSING = [  # (channels, resolution, modes, batch) around the crossover of the two forms
    (channels, resolution, modes, 2 if resolution == 256 else 4)
    for channels, resolution, modes in product((8, 16, 32, 64), (64, 128, 256), (12, 16, 24, 32, 48, 64))
    if modes <= resolution // 2
]


def measure(quick):
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for size in network_sizes(quick) + ([] if quick else CROSSING):
        rows += measure_size(size, device, rounds=5 if quick else 7)
    return rows


def network_sizes(quick):
    """(channels, resolution, modes, batch) of all spectral convolutions in the built-in networks."""
    sizes = set()
    for profile, settings in PROFILES.items():
        for architecture, depth in product(("hybrid", "fno"), DEPTHS[profile][: 1 if quick else None]):
            config = ModelConfig(architecture=architecture, fno_blocks=depth, max_hidden_channels=512, **settings)
            with torch.device("meta"):
                network = build_generator(config)
            layers = [block.spectral for block in residual_blocks(network).values()]
            sizes |= {(layer.in_channels, layer.resolution, layer.modes, BATCH) for layer in layers}
    return sorted(sizes, key=lambda size: (-size[1], size))


def measure_size(size, device, rounds):
    channels, resolution, modes, batch = size
    said = f"{channels} channels, {resolution}², {modes} modes, batch {batch}"
    layer = SpectralConv2d(channels, channels, modes, resolution).to(device)
    x = torch.randn(batch, resolution, resolution, channels, device=device).movedim(-1, 1).requires_grad_()
    gradient = torch.randn_like(x)
    forms = {name: form(modes, resolution).apply(lambda t: t.to(device)) for name, form in FORMS.items()}

    def forward(name):
        layer.fourier = forms[name]
        with torch.no_grad():
            return layer(x)

    def step(name):
        layer.fourier = forms[name]
        layer.weight.grad = x.grad = None
        layer(x).backward(gradient)

    rows = []
    for what, work in (("forward", forward), ("forward and backward", step)):
        works = {name: partial(work, name) for name in forms}
        rows += compared(f"{said}, {what}", medians(in_turns(works, rounds, device=device.type)), "ms", of="fft")
    exact = SpectralConv2d(channels, channels, modes, resolution).double()
    exact.fourier = FFTFourier(modes, resolution).apply(torch.Tensor.double)
    with torch.no_grad():
        exact.weight.copy_(layer.weight)
        expected = exact(x.detach().cpu().double())
        for name in forms:
            error = (forward(name).cpu().double() - expected).norm() / expected.norm()
            rows.append(row(f"{said}, relative error", name, float(error), ""))
    return rows
