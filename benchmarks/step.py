"""Time and memory of a training step with our spectral convolutions, neuraloperator's, and the published ones.

    python -m benchmarks --only step

A step includes loss, backward pass and optimiser, at full size with batch 16, as in a trial. Each variant runs in a
separate process; they alternate step by step. ``kept`` is the allocator setting of training processes, which keeps
freed memory; ``default`` is the system's. neuraloperator's `SpectralConv` has the same modes and no bias, since the
local convolution beside it has one. Complex weights use the ``foreach`` implementation of Adam, as the fused one does
not support them. ``compiled`` is fnostab's network under torch.compile. The shares of a step say how much faster it
could become: all but the products of the spectral convolutions is work that neuraloperator's network has too.
"""

from importlib.util import find_spec
from typing import Any

from benchmarks.timing import Row, clock, compared, own_process, resident, restart_peak, row, skipped

HYBRID = "hybrid, 4 blocks"
NETWORKS: dict[str, dict[str, Any]] = {
    HYBRID: {"model.architecture": "hybrid"},
    "stable_hybrid, zero_gamma": {"model.architecture": "stable_hybrid", "model.residual": "zero_gamma"},
    "stable_hybrid, layerscale": {"model.architecture": "stable_hybrid", "model.residual": "layerscale"},
    "fno": {"model.architecture": "fno"},
}
DEPTHS: dict[str, dict[str, Any]] = {
    f"hybrid, {blocks} blocks, cap 512": {"model.fno_blocks": blocks, "model.max_hidden_channels": 512}
    for blocks in (6, 8)
}
OURS, NEURALOP, REFERENCE, COMPILED = "fnostab", "neuraloperator", "reference layout", "compiled"
AS_IT_TRAINS = ((OURS, "kept"), (OURS, "default"), (NEURALOP, "default"), (NEURALOP, "kept"), (REFERENCE, "default"))
ALL = (*AS_IT_TRAINS, (REFERENCE, "kept"), (COMPILED, "kept"))
OPERATORS = {
    "aten::convolution_backward": "convolutions",
    "aten::mkldnn_convolution": "convolutions",
    "aten::bmm": "products of spectral convolutions",
    "aten::_fused_adam_": "Adam",
    "aten::gelu": "GELU",
    "aten::gelu_backward": "GELU",
}
SAME = ((OURS, "kept"), (NEURALOP, "kept"), (REFERENCE, "kept"))


def measure(quick: bool) -> list[Row]:
    """Measure time and peak memory of a step; the quick run leaves out deeper networks and has fewer rounds."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = [] if device == "cuda" else [skipped("step on a GPU", "torch sees none")]
    if not find_spec("neuralop"):
        rows.append(skipped("step on neuraloperator", "not installed: pip install 'fnostab[bench]'"))
    for name, settings in (NETWORKS if quick else NETWORKS | DEPTHS).items():
        variants = ALL if name == HYBRID else SAME
        if device == "cuda":  # torch's own allocator is used
            variants = tuple(one for one in variants if one[1] == "kept")
        variants = tuple(one for one in variants if one[0] != NEURALOP or find_spec("neuralop"))
        rows += of_network(name, settings, device, variants, rounds=3 if quick else 7)
    if device == "cpu":
        with own_process(prepare, NETWORKS[HYBRID], device, OURS, "kept") as process:
            found = process.submit(shares).result()
        rows += [row(f"share of a step of {HYBRID}", what, share, "%") for what, share in found.items()]
    return rows


def of_network(
    name: str, settings: dict[str, Any], device: str, variants: tuple[tuple[str, str], ...], rounds: int
) -> list[Row]:
    processes = {of: own_process(prepare, settings, device, *of) for of in variants}
    try:
        times = {of: [] for of in variants}
        for number in range(rounds + 2):
            for of, process in processes.items():
                seconds = process.submit(step).result()
                if number >= 2:
                    times[of].append(seconds)
        peaks = {of: process.submit(peak_bytes).result() for of, process in processes.items()}
    finally:
        for process in processes.values():
            process.shutdown()
    alone = len(variants) == len({layers for layers, _ in variants})
    labels = {of: of[0] if alone else ", ".join(of) for of in variants}
    ours = next(iter(labels.values()))
    seconds = {labels[of]: sorted(found)[len(found) // 2] * 1e3 for of, found in times.items()}
    memory = {labels[of]: peak / 1e9 for of, peak in peaks.items()}
    return [*compared(f"step of {name}", seconds, "ms", ours), *compared(f"memory of {name}", memory, "GB", ours)]


# The following functions run in the process of one variant.

_variant: dict[str, Any] = {}


def prepare(settings: dict[str, Any], device: str, layers: str, allocator: str) -> None:
    """Build the network, optimiser and batch of a variant."""
    import torch

    from fnostab.launch.process import keep_freed_memory
    from fnostab.ptychography.settings import TrialConfig
    from fnostab.ptychography.training.step_cost import bare_trial, step_seconds

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as in trials; after a few steps there are subnormal numbers
    if allocator == "kept":
        keep_freed_memory()
    tiny = {"data.N": 16, "data.object_size": 40, "data.scan_stride_test": 4}
    step_seconds(TrialConfig.from_dotted(tiny), device)  # loads all code
    _variant.update(device=device, before=resident("VmRSS"))
    restart_peak()
    torch.manual_seed(0)
    module, batch = bare_trial(TrialConfig.from_dotted(settings), "cpu")
    if layers in (NEURALOP, REFERENCE):
        replace_layers(module.generator, layers)
    elif layers == COMPILED:
        module.generator = torch.compile(module.generator)
    module.to(device)
    optimizer = module.configure_optimizers()
    if layers in (NEURALOP, REFERENCE):
        optimizer = torch.optim.Adam(module.generator.parameters(), foreach=True)
    patterns, indices = batch()
    _variant.update(module=module, optimizer=optimizer, batch=(patterns.to(device), indices))


def replace_layers(generator: Any, layers: str) -> None:
    """Replace our spectral convolutions by others."""
    from fnostab.ptychography.models import residual_blocks
    from fnostab.ptychography.models.published_spectral import PublishedSpectralConv2d

    for block in residual_blocks(generator).values():
        ours = block.spectral
        if layers == NEURALOP:
            from neuralop.layers.spectral_convolution import SpectralConv

            rows = min(2 * ours.modes, ours.resolution)  # n_modes counts both signs, also for columns
            block.spectral = SpectralConv(ours.in_channels, ours.out_channels, n_modes=(rows, rows), bias=False)
        else:
            block.spectral = PublishedSpectralConv2d(ours.in_channels, ours.out_channels, ours.modes)


def step() -> float:
    """Make one step; return its duration in seconds."""
    module, optimizer, batch, device = (_variant[name] for name in ("module", "optimizer", "batch", "device"))
    started = clock(device)
    optimizer.zero_grad()
    module.training_step(batch, 0).backward()
    optimizer.step()
    return clock(device) - started


def shares() -> dict[str, float]:
    """Make four steps after a first; return the shares of kinds of operators in their time, in percent."""
    from torch.profiler import ProfilerActivity, profile

    step()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(4):
            step()
    times = {event.key: event.self_cpu_time_total for event in profiled.key_averages()}
    found = dict.fromkeys((*OPERATORS.values(), "all else"), 0.0)
    for name, time_us in times.items():
        found[OPERATORS.get(name, "all else")] += 100 * time_us / sum(times.values())
    return found


def peak_bytes() -> int:
    """Peak memory of building and training the network in bytes, without code."""
    import torch

    if _variant["device"] == "cuda":
        return torch.cuda.max_memory_allocated()
    return resident("VmHWM") - _variant["before"]
