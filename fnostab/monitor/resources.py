"""Record CPU, memory and GPU use and the throughput of a training run."""

import math
import resource
import sys
import time
from typing import Any

import psutil
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.data import extract_batch_size

from fnostab.record import names
from fnostab.record.journal import Sink


class ResourceSampler(Callback):
    """Record the process's resource use, under the names of MLflow's system metrics.

    Samples are taken between steps, at most once every ``interval_s`` seconds; the step of a point is the sample
    number. At the end, samples per second over all training batches and peak memory in bytes are recorded.
    """

    def __init__(self, sink: Sink, interval_s: float = 5.0) -> None:
        self.sink = sink
        self.interval_s = interval_s
        self._process = psutil.Process()
        self._samples = 0
        self._last_sample_s = -math.inf  # the monotonic clock may start near 0
        self._trained_s = 0.0
        self._trained_samples = 0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._started_s = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now_s = time.perf_counter()
        self._trained_s += now_s - self._started_s
        self._trained_samples += extract_batch_size(batch)
        if now_s - self._last_sample_s >= self.interval_s:
            self._last_sample_s = now_s
            self._sample(on_gpu=pl_module.device.type == "cuda")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        values = {names.PEAK_MEMORY: float(peak_memory_bytes())}
        if self._trained_s:
            values[names.SAMPLES_PER_S] = self._trained_samples / self._trained_s
        self.sink.record(max(trainer.global_step - 1, 0), values)

    def _sample(self, *, on_gpu: bool) -> None:
        values = {
            "system/cpu_utilization_percentage": self._process.cpu_percent(),
            "system/system_memory_usage_megabytes": self._process.memory_info().rss / 1e6,
        }
        if on_gpu:  # otherwise the query would initialise CUDA
            free, total = torch.cuda.mem_get_info()
            values["system/gpu_0_memory_usage_megabytes"] = (total - free) / 1e6
        self.sink.record(self._samples, values)
        self._samples += 1


def peak_memory_bytes() -> int:
    """Peak memory of the process in bytes: on the GPU if it used one, else resident."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
