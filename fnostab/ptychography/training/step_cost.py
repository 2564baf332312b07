"""Measure the memory of a training step on the meta device, and its time by a few real steps."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from fnostab.monitor.snapshots import GENERATIONS
from fnostab.ptychography.data import pattern_counts, probe_of
from fnostab.ptychography.data.grid_lines import GridLines, Split
from fnostab.ptychography.estimates import TrainingSize, network_key
from fnostab.ptychography.models import build_initialised, training_size
from fnostab.ptychography.physics.scan import scan_positions
from fnostab.ptychography.settings import DataConfig, TrialConfig
from fnostab.ptychography.training.module import PtychoModule

COPIES = GENERATIONS + 1  # copies of weights and optimiser: the snapshots, and the one being written
MEASURED_S = 0.05  # minimum total time of the timed steps, after a warm-up step


def costs(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Memory and patterns of trials with these settings: the arguments of their `Estimate`, JSON-ready."""
    sizes: dict[str, TrainingSize | None] = {}
    found = []
    for config in map(TrialConfig.from_dotted, configs):
        key = network_key(config)
        if key not in sizes:
            sizes[key] = trace(config)
        size = sizes[key]
        found.append({"size": size and asdict(size), "copies": COPIES, "patterns": _patterns(config.data)})
    return found


def step_times(configs: Sequence[Mapping[str, Any]], *, gpu: bool) -> list[float | None]:
    """Durations of a training step with these settings; on a GPU if ``gpu`` and torch can use it."""
    device = "cuda" if gpu and torch.cuda.is_available() else "cpu"
    return [step_seconds(TrialConfig.from_dotted(config), device) for config in configs]


def trace(config: TrialConfig) -> TrainingSize | None:
    """Measure the memory of a trial's network and of one training step, including physics and loss.

    A custom optimiser counts as Adam.

    Returns:
        The size; None if a custom part can't be built or run on the meta device.
    """
    training = config.training
    moments = 2 if training.optimizer != "sgd" else int(training.momentum > 0)
    try:
        with torch.device("meta"):
            module, batch = bare_trial(config, "meta")
            return training_size(module, lambda: module.training_step(batch(), 0), moments)
    except (Exception, SystemExit):
        if not config.own:
            raise
        return None


def step_seconds(config: TrialConfig, device: str) -> float | None:
    """Measure the duration of a training step on ``device`` with random patterns, in seconds.

    One thread is used, as in a trial. After a warm-up step the shortest of several steps counts.

    Returns:
        The duration; None if a custom part fails, or other processes leave too little GPU memory.
    """
    torch.set_num_threads(1)
    try:
        return _shortest_step(config, device)
    except torch.OutOfMemoryError:  # other processes use the GPU
        return None
    except (Exception, SystemExit):
        if not config.own:
            raise
        return None


def bare_trial(config: TrialConfig, device: str) -> tuple[PtychoModule, Callable[[], tuple[Tensor, Tensor]]]:
    """Build a trial's module without a data set, and a function that returns batches of random patterns."""
    N, batch_size = config.data.N, config.training.batch_size
    corners = torch.empty(0, 2, dtype=torch.int64)
    nothing = Split(torch.empty(0, 1, N, N), corners, corners[:, 0], torch.empty(0, N, N, dtype=torch.complex64))
    probe = probe_of(config.data).to(device)
    data = GridLines(probe, 1.0, 1.0, 1.0, train=nothing, validation=nothing, test=nothing)
    module = PtychoModule(build_initialised(config.model, seed=0), data, config).to(device)

    def batch() -> tuple[Tensor, Tensor]:
        return torch.rand(batch_size, 1, N, N, device=device), torch.arange(batch_size, device=device)

    return module, batch


def _shortest_step(config: TrialConfig, device: str) -> float:
    constant = config.training.model_copy(update={"schedule": "none", "warmup_steps": 0})
    module, batch = bare_trial(config.model_copy(update={"training": constant}), device)
    optimizer = module.configure_optimizers()
    patterns = batch()

    def step() -> float:
        started = time.perf_counter()
        optimizer.zero_grad()
        module.backward(module.training_step(patterns, 0))
        module.configure_gradient_clipping(optimizer)
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    step()
    times = [step()]
    while sum(times) < MEASURED_S:
        times.append(step())
    return min(times)


def _patterns(data: DataConfig) -> tuple[int, int]:
    """Numbers of training and validation patterns."""
    if data.path is not None:
        counts = pattern_counts(data)
        return counts["train"], counts["validation"]
    of_an_object = [
        len(scan_positions(data.object_size, data.N, stride))
        for stride in (data.scan_stride_train, data.scan_stride_test)
    ]
    return data.nimgs_train * of_an_object[0], data.nimgs_test * of_an_object[1]
