"""A training step: each built-in network, the same on neuraloperator's SpectralConv, and on the reference's layers.

    python -m benchmarks --only step

Loss, backward pass and optimiser of a step at full size, batch 16, as a trial makes them. Each variant is a process
of its own; they take turns, step by step. ``kept`` is the allocator setting of a process that trains, which keeps
freed memory; ``default`` is the system's. `SpectralConv` gets the same modes, without a bias, which the local
convolution beside it has; complex weights take Adam's ``foreach`` form, since there is no fused one for them.
"""

from importlib.util import find_spec
from typing import Any

from benchmarks.timing import Row, clock, compared, own_process, resident, restart_peak, skipped

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
OURS, NEURALOP, REFERENCE = "fnostab", "neuraloperator", "reference layout"
AS_IT_TRAINS = ((OURS, "kept"), (OURS, "default"), (NEURALOP, "default"), (NEURALOP, "kept"), (REFERENCE, "default"))
ALL = (*AS_IT_TRAINS, (REFERENCE, "kept"))
SAME = ((OURS, "kept"), (NEURALOP, "kept"), (REFERENCE, "kept"))


def measure(quick: bool) -> list[Row]:
    """Time and peak memory of a step; in the quick run of one network in all variants, of the others in the same."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = [] if device == "cuda" else [skipped("step on a GPU", "torch sees none")]
    if not find_spec("neuralop"):
        rows.append(skipped("step on neuraloperator", "not installed: pip install 'fnostab[bench]'"))
    for name, settings in (NETWORKS if quick else NETWORKS | DEPTHS).items():
        variants = ALL if name == HYBRID else SAME
        if device == "cuda":  # it has an allocator of its own
            variants = tuple(one for one in variants if one[1] == "kept")
        variants = tuple(one for one in variants if one[0] != NEURALOP or find_spec("neuralop"))
        rows += of_network(name, settings, device, variants, rounds=3 if quick else 7)
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


# What follows runs in the process of one variant.

_variant: dict[str, Any] = {}


def prepare(settings: dict[str, Any], device: str, layers: str, allocator: str) -> None:
    """Build a variant."""
    import torch

    from fnostab.launch.process import keep_freed_memory
    from fnostab.ptychography.estimates import bare_trial, step_seconds
    from fnostab.ptychography.settings import TrialConfig

    torch.set_num_threads(1)
    if allocator == "kept":
        keep_freed_memory()
    tiny = {"data.N": 16, "data.object_size": 40, "data.scan_stride_test": 4}
    step_seconds(TrialConfig.from_dotted(tiny), device)  # all code is loaded
    _variant.update(device=device, before=resident("VmRSS"))
    restart_peak()
    torch.manual_seed(0)
    module, batch = bare_trial(TrialConfig.from_dotted(settings), "cpu")
    if layers != OURS:
        replace_layers(module.generator, layers)
    module.to(device)
    optimizer = module.configure_optimizers()
    if layers != OURS:
        optimizer = torch.optim.Adam(module.generator.parameters(), foreach=True)
    patterns, indices = batch()
    _variant.update(module=module, optimizer=optimizer, batch=(patterns.to(device), indices))


def replace_layers(generator: Any, layers: str) -> None:
    """Put another library's spectral convolutions in the place of ours."""
    from fnostab.ptychography.models import residual_blocks
    from fnostab.ptychography.models.published_spectral import PublishedSpectralConv2d

    for block in residual_blocks(generator).values():
        ours = block.spectral
        if layers == NEURALOP:
            from neuralop.layers.spectral_convolution import SpectralConv

            rows = min(2 * ours.modes, ours.resolution)  # it counts both signs, of the columns too
            block.spectral = SpectralConv(ours.in_channels, ours.out_channels, n_modes=(rows, rows), bias=False)
        else:
            block.spectral = PublishedSpectralConv2d(ours.in_channels, ours.out_channels, ours.modes)


def step() -> float:
    """Make one, and say what it took."""
    module, optimizer, batch, device = (_variant[name] for name in ("module", "optimizer", "batch", "device"))
    started = clock(device)
    optimizer.zero_grad()
    module.training_step(batch, 0).backward()
    optimizer.step()
    return clock(device) - started


def peak_bytes() -> int:
    """Peak memory of building and training it, in addition to all code."""
    import torch

    if _variant["device"] == "cuda":
        return torch.cuda.max_memory_allocated()
    return resident("VmHWM") - _variant["before"]
