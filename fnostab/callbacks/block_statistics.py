"""Mean and spread of every block's output, once an epoch.

The drift hypothesis is that the mean of the activations grows from block to block. This shows
whether it does, beside each block's residual gain and gradient norm.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from fnostab import names
from fnostab.journal import Sink

__all__ = ["BlockStatistics", "block_outputs"]


@contextmanager
def block_outputs(blocks: Mapping[str, nn.Module]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Collect (mean, standard deviation) of each block's next output, by the block's name.

    Of a complex output, real and imaginary parts count as values of their own; of several outputs, as
    of an ``nn.LSTM``, the first counts. What gives no tensor is left out.

    Yields a dict that fills while the blocks run; 0-d tensors on their device.
    """
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def hook(name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple | list) and output else output
            if isinstance(first, Tensor):
                values = torch.view_as_real(first) if first.is_complex() else first
                std, mean = torch.std_mean(values.detach().float(), correction=0)
                seen[name] = (mean, std)

        return keep

    handles = [block.register_forward_hook(hook(name)) for name, block in blocks.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


class BlockStatistics(Callback):
    """Record activation mean and spread, residual gain and gradient norm of every block each epoch.

    Activations are those of the first validation batch; gradients those of the epoch's last step,
    after clipping. An epoch that is ended early has none.

    Args:
        sink: gets the points.
        blocks: by the name to record them under.
    """

    def __init__(self, sink: Sink, blocks: Mapping[str, nn.Module]) -> None:
        self.sink = sink
        self.blocks = blocks
        self._collecting: Any = None
        self._gradient_norms: dict[str, Tensor] = {}

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch:  # now: Lightning drops all gradients before it validates
            for name, block in self.blocks.items():
                gradients = [p.grad for p in block.parameters() if p.grad is not None]
                if gradients:
                    self._gradient_norms[name] = get_total_norm(gradients)

    def on_validation_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx == 0:
            self._collecting = block_outputs(self.blocks)
            self._seen = self._collecting.__enter__()

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._collecting is not None:
            self._collecting.__exit__(None, None, None)
            self._collecting = None

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        values: dict[str, float] = {}
        for name, (mean, std) in self._seen.items():
            values[names.ACTIVATION_MEAN + name] = float(mean)
            values[names.ACTIVATION_STD + name] = float(std)
        for name, block in self.blocks.items():
            gain = getattr(block, "gain_magnitude", lambda: None)()
            if gain is not None:
                values[names.RESIDUAL_GAIN + name] = float(gain)
            if name in self._gradient_norms:
                values[names.BLOCK_GRAD_NORM + name] = float(self._gradient_norms[name])
        self._gradient_norms = {}
        self.sink.record(max(trainer.global_step - 1, 0), {k: v for k, v in values.items() if math.isfinite(v)})
