"""Record statistics of every block of a network, once per epoch.

The drift hypothesis is that the mean of the activations grows from block to block. This shows
whether it does, and also records the spread of the activations, the share of dead units, the ratio of the
branches, the smoothness of the outputs, and each block's residual gain and gradient norm.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from fnostab.monitor.layer_measures import dead_share, low_frequency_share, real_values, rms
from fnostab.record import names
from fnostab.record.journal import Sink


@contextmanager
def block_states(blocks: Mapping[str, nn.Module]) -> Iterator[dict[str, dict[str, Tensor]]]:
    """Collect the quantities of each block at its next forward pass, by block name.

    For any block: mean and standard deviation of its output over batch, channels and pixels, and the share of
    low frequencies if the output is images. For a residual block, which has ``act``, ``spectral`` and ``conv``,
    also the share of dead units after its activation, and the ratio of the RMS of the spectral branch's output
    to that of the convolution's. `fnostab.monitor.layer_measures` defines them.

    Real and imaginary parts of a complex output count as separate values. If a block returns several outputs, as
    ``nn.LSTM`` does, the first is used. Blocks whose output is not a tensor are left out.

    Yields a dict that is filled as the blocks run, in that order: for each block, a dict of 0-d tensors on their
    device, keyed by the names in ``names.BLOCK_QUANTITIES``.
    """
    seen: dict[str, dict[str, Tensor]] = {}
    handles = []
    for name, block in blocks.items():
        inner: dict[str, Tensor] = {}
        for part in ("act", "spectral", "conv"):
            if isinstance(module := getattr(block, part, None), nn.Module):
                handles.append(module.register_forward_hook(_keep(inner, part)))
        handles.append(block.register_forward_hook(_measure(seen, name, inner)))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _keep(inner: dict[str, Tensor], part: str) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            inner[part] = real_values(output)

    return hook


def _measure(seen: dict[str, dict[str, Tensor]], name: str, inner: dict[str, Tensor]) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple | list) and output else output
        if isinstance(first, Tensor):
            values = real_values(first)
            std, mean = torch.std_mean(values, correction=0)
            found = {
                names.ACTIVATION_MEAN: mean,
                names.ACTIVATION_STD: std,
                names.DEAD_UNITS: dead_share(inner["act"]) if "act" in inner else None,
                names.SPECTRAL_TO_LOCAL: (
                    rms(inner["spectral"]) / rms(inner["conv"]) if {"spectral", "conv"} <= inner.keys() else None
                ),
                names.LOW_FREQUENCIES: None if first.is_complex() else low_frequency_share(values),
            }
            seen[name] = {quantity: value for quantity, value in found.items() if value is not None}
        inner.clear()

    return hook


class BlockStatistics(Callback):
    """Record the quantities of `block_states`, the residual gain and the gradient norm of every block each epoch.

    Activations are taken from the first validation batch, gradients from the epoch's last step,
    after clipping; an epoch that ends early has no gradients. Non-finite values are left out.

    Args:
        sink: receives the points.
        blocks: blocks by the name to record them under.
    """

    def __init__(self, sink: Sink, blocks: Mapping[str, nn.Module]) -> None:
        self.sink = sink
        self.blocks = blocks
        self._collecting: Any = None
        self._gradient_norms: dict[str, Tensor] = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch:  # Lightning clears all gradients before validation
            for name, block in self.blocks.items():
                gradients = [p.grad for p in block.parameters() if p.grad is not None]
                if gradients:
                    self._gradient_norms[name] = get_total_norm(gradients)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == 0:
            self._collecting = block_states(self.blocks)
            self._seen = self._collecting.__enter__()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._collecting is not None:
            self._collecting.__exit__(None, None, None)
            self._collecting = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        values: dict[str, float] = {}
        for name, state in self._seen.items():
            values |= {quantity + name: float(value) for quantity, value in state.items()}
        for name, block in self.blocks.items():
            gain = getattr(block, "gain_magnitude", lambda: None)()
            if gain is not None:
                values[names.RESIDUAL_GAIN + name] = float(gain)
            if name in self._gradient_norms:
                values[names.BLOCK_GRAD_NORM + name] = float(self._gradient_norms[name])
        self._gradient_norms = {}
        self.sink.record(max(trainer.global_step - 1, 0), {k: v for k, v in values.items() if math.isfinite(v)})
