"""Estimate the memory of a trial from a step on the meta device, and its time from a few real steps."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fnostab.monitor.snapshots import GENERATIONS
from fnostab.ptychography.data import pattern_counts, probe_of
from fnostab.ptychography.data.grid_lines import GridLines, Split
from fnostab.ptychography.models import TrainingSize, build_generator, training_size
from fnostab.ptychography.physics.scan import scan_positions
from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.training.module import PtychoModule

PROCESS_BYTES = 500_000_000  # a trial's process without its network: Python, torch, Lightning; or the CUDA context
COPIES = GENERATIONS + 1  # copies of weights and optimiser: the snapshots, and the one being written
FORWARD_SHARE = 1 / 3  # share of a step's time; the backward pass takes twice as long
START_AND_END_S = 8.0  # imports, scores and figures of a trial
MEASURED_S = 0.05  # minimum total time of the timed steps, after a warm-up step


@dataclass(frozen=True)
class Estimate:
    """Estimated memory and time of one trial of an arm.

    Attributes:
        config: configuration of the trial.
        size: memory of the network and of a training step; None if a custom network can't run on the meta device.
        step_s: duration of a training step in seconds; None if not measured.
    """

    config: TrialConfig
    size: TrainingSize | None
    step_s: float | None = None

    @property
    def snapshot_bytes(self) -> int:
        """Bytes of the copies of weights and optimiser state that are kept in case the trial fails."""
        return 0 if self.size is None else COPIES * (self.size.weight_bytes + self.size.optimizer_bytes)

    @property
    def needed_bytes(self) -> int | None:
        """Peak memory of the trial's process in bytes; None if unknown."""
        return None if self.size is None else self.size.total_bytes + self.snapshot_bytes + PROCESS_BYTES

    @property
    def trial_s(self) -> float | None:
        """Duration in seconds of a trial that does not end early, with validations and test; None if not measured."""
        if self.step_s is None:
            return None
        epochs, batch_size = self.config.training.epochs, self.config.training.batch_size
        trained, validated = (math.ceil(n / batch_size) for n in self._patterns())
        return START_AND_END_S + self.step_s * (epochs * trained + FORWARD_SHARE * (epochs + 1) * validated)

    def _patterns(self) -> tuple[int, int]:
        """Numbers of training and validation patterns."""
        data = self.config.data
        if data.path is not None:
            counts = pattern_counts(data)
            return counts["train"], counts["validation"]
        of_an_object = [
            len(scan_positions(data.object_size, data.N, stride))
            for stride in (data.scan_stride_train, data.scan_stride_test)
        ]
        return data.nimgs_train * of_an_object[0], data.nimgs_test * of_an_object[1]


def network_key(config: TrialConfig) -> str:
    """Key that is equal for configurations whose steps take the same memory and time, clipping aside."""
    model, training = config.model, config.training
    unused = set() if model.own else {"layerscale_init"}
    step = (training.batch_size, training.optimizer, training.options, training.momentum > 0, training.loss)
    return json.dumps([model.model_dump(exclude=unused), *step, config.execution.convolution_precision])


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
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            return _shortest_step(config, device)
    except torch.OutOfMemoryError:  # other processes use the GPU
        return None
    except (Exception, SystemExit):
        if not config.own:
            raise
        return None
    finally:
        torch.set_num_threads(threads)


def bare_trial(config: TrialConfig, device: str) -> tuple[PtychoModule, Callable[[], tuple[Tensor, Tensor]]]:
    """Build a trial's module without a data set, and a function that returns batches of random patterns."""
    N, batch_size = config.data.N, config.training.batch_size
    corners = torch.empty(0, 2, dtype=torch.int64)
    nothing = Split(torch.empty(0, 1, N, N), corners, corners[:, 0], torch.empty(0, N, N, dtype=torch.complex64))
    probe = probe_of(config.data).to(device)
    data = GridLines(probe, 1.0, 1.0, 1.0, train=nothing, validation=nothing, test=nothing)
    module = PtychoModule(build_generator(config.model), data, config).to(device)

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
