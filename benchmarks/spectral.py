"""The spectral convolution by matrices and by FFT: forward, forward and backward, and error, at the networks' sizes.

    python -m benchmarks.spectral            # every size, and more modes than any network has: a minute on one core
    python -m benchmarks.spectral --quick    # the small profile's, and the full one's at depth 4

On a GPU where there is one, else on one thread of the CPU, where the time is the process's own: other
processes do not count. Forms take turns. The error is relative to the FFT in float64.
"""

import argparse
import statistics
import time
from itertools import product

import torch
from rich.console import Console
from rich.table import Table

from fnostab.config import ModelConfig
from fnostab.models import SpectralConv2d, build_generator, residual_blocks
from fnostab.models.fourier import FFTFourier, MatrixFourier

FORMS = {"matrices": MatrixFourier, "fft": FFTFourier}
BATCH = 16
PROFILES = {"small": {"N": 32, "hidden_channels": 8, "fno_modes": 8}, "full": {"N": 64, "fno_modes": 12}}
DEPTHS = {"small": (3, 4, 6), "full": (4, 6, 8)}  # capped at 512 channels, as deep studies are
CROSSING = [  # (channels, resolution, modes, batch): where one form becomes the faster one
    (channels, resolution, modes, 2 if resolution == 256 else 4)
    for channels, resolution, modes in product((8, 16, 32, 64), (64, 128, 256), (12, 16, 24, 32, 48, 64))
    if modes <= resolution // 2
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    rows = measure(parser.parse_args().quick)
    table = Table("channels, pixels, modes, batch", "form", "value", "unit", "to")
    for row in rows:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f} x {row['of']}"
        table.add_row(row["what"], row["variant"], f"{row['value']:.3g}", row["unit"], ratio)
    Console().print(table)


def measure(quick):
    """Rows of what, variant, value, unit, and the ratio to the variant named in ``of``, None for that itself."""
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for size in network_sizes(quick) + ([] if quick else CROSSING):
        rows += measure_size(size, device, rounds=5 if quick else 7)
    return rows


def network_sizes(quick):
    """All (channels, resolution, modes, batch) of the spectral convolutions in the built-in networks."""
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
        times = {name: [] for name in forms}
        for round_, name in product(range(rounds + 1), forms):
            seconds = timed(work, name, device)
            if round_:  # the first warms up
                times[name].append(seconds)
        medians = {name: statistics.median(found) * 1e3 for name, found in times.items()}
        rows += [row(size, f"{name}, {what}", value, "ms", medians["fft"]) for name, value in medians.items()]
    exact = SpectralConv2d(channels, channels, modes, resolution).double()
    exact.fourier = FFTFourier(modes, resolution).apply(torch.Tensor.double)
    with torch.no_grad():
        exact.weight.copy_(layer.weight)
        expected = exact(x.detach().cpu().double())
        for name in forms:
            error = (forward(name).cpu().double() - expected).norm() / expected.norm()
            rows.append(row(size, f"{name}, error", float(error), "relative", None))
    return rows


def timed(work, name, device):
    """Seconds that ``work(name)`` takes."""
    if device.type != "cuda":
        started = time.process_time()
        work(name)
        return time.process_time() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    work(name)
    torch.cuda.synchronize()
    return time.perf_counter() - started


def row(size, variant, value, unit, base):
    compared = base is not None and not variant.startswith("fft")
    return {
        "what": ", ".join(map(str, size)),
        "variant": variant,
        "value": value,
        "unit": unit,
        "ratio": value / base if compared else None,
        "of": variant.replace("matrices", "fft") if compared else None,
    }


if __name__ == "__main__":
    main()
