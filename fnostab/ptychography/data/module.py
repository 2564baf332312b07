"""Lightning data module and loaders for diffraction patterns.

All patterns are in memory, so a batch is a single indexing operation on one tensor, without workers. They are moved
to the GPU if they need at most a quarter of its free memory. The order of each epoch has its own random stream and
does not depend on earlier random draws.
"""

import math
from collections.abc import Iterator

import lightning
import torch
from torch import Tensor

from fnostab.ptychography.data.grid_lines import GridLines
from fnostab.seeding import stream_seed

Batch = tuple[Tensor, Tensor]


class EpochOrder:
    """Random order of ``n_patterns`` patterns in each epoch.

    Lightning calls ``set_epoch`` of a loader's ``sampler`` before every epoch, also after a resume.
    """

    def __init__(self, n_patterns: int, order_seed: int) -> None:
        self.n_patterns = n_patterns
        self.order_seed = order_seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Select the current epoch, counted from 0."""
        self.epoch = epoch

    def order(self, epoch: int | None = None) -> Tensor:
        """Permutation of the patterns in an epoch (default: the current one), int64 of shape (n_patterns,)."""
        seed = stream_seed(self.order_seed, "epoch", str(self.epoch if epoch is None else epoch))
        return torch.randperm(self.n_patterns, generator=torch.Generator().manual_seed(seed))


class PatternLoader:
    """Loader of batches (amplitudes (B, 1, N, N), indices (B,)); the last batch may be smaller.

    Args:
        amplitudes: amplitudes of all patterns, shape (n, 1, N, N); batches are on the same device.
        batch_size: patterns per batch.
        sampler: order of the patterns; None keeps them in their given order.
    """

    def __init__(self, amplitudes: Tensor, batch_size: int, sampler: EpochOrder | None = None) -> None:
        self.amplitudes = amplitudes
        self.batch_size = batch_size
        self.sampler = sampler
        self.batch_sampler = None  # read by Lightning from every loader with a sampler
        self._first_batch = 0

    def __len__(self) -> int:
        return math.ceil(len(self.amplitudes) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        order = torch.arange(len(self.amplitudes)) if self.sampler is None else self.sampler.order()
        first, self._first_batch = self._first_batch, 0
        for indices in order.to(self.amplitudes.device).split(self.batch_size)[first:]:
            yield self.amplitudes[indices], indices

    def start_at(self, batch: int) -> None:
        """Start the next epoch, and only that one, at this batch."""
        self._first_batch = batch


class GridLinesData(lightning.LightningDataModule):
    """Lightning data module of a `GridLines` data set; the last batch of an epoch may be smaller.

    Args:
        data: the data set.
        batch_size: patterns per training batch.
        order_seed: seed of the order of training patterns.
        eval_batch_size: patterns per validation batch.
    """

    def __init__(self, data: GridLines, batch_size: int, order_seed: int, *, eval_batch_size: int = 64) -> None:
        super().__init__()
        self.data = data
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self._order = EpochOrder(len(data.train.amplitudes), order_seed)

    def epoch_order(self, epoch: int) -> Tensor:
        """Indices of the training patterns in the order of an epoch, counted from 0; int64 of shape (n,)."""
        return self._order.order(epoch)

    def batch_indices(self, step: int) -> Tensor:
        """Indices of the training patterns in the batch of a step, counted from 0; int64 of shape (B,)."""
        epoch, number = divmod(step, math.ceil(self._order.n_patterns / self.batch_size))
        return self.epoch_order(epoch).split(self.batch_size)[number]

    def train_dataloader(self) -> PatternLoader:
        """Loader of all training patterns, reshuffled every epoch."""
        return PatternLoader(self._placed(self.data.train.amplitudes), self.batch_size, self._order)

    def val_dataloader(self) -> PatternLoader:
        """Loader of all validation patterns, in order."""
        return PatternLoader(self._placed(self.data.validation.amplitudes), self.eval_batch_size)

    def _placed(self, amplitudes: Tensor) -> Tensor:
        if self.trainer is None:
            return amplitudes
        device = self.trainer.strategy.root_device
        if device.type != "cuda" or not fits(amplitudes.nbytes, torch.cuda.mem_get_info(device)[0]):
            return amplitudes
        return amplitudes.to(device)


def fits(n_bytes: int, n_free: int) -> bool:
    """Whether data of ``n_bytes`` may be kept on a device: at most a quarter of its ``n_free`` free bytes."""
    return n_bytes <= n_free // 4
