"""No step of a training waits for the device, with all that a trial watches it by."""

import itertools

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from waiting import Reads, Waits

from fnostab.monitor import BlackBox, BlockStatistics, ResourceSampler, Snapshots
from fnostab.ptychography.data.module import fits
from fnostab.ptychography.training.checkpoint import BestCheckpoint
from fnostab.ptychography.training.setup import set_up, watched_blocks
from fnostab.record.journal import Journal

CLIPPING = [
    {},
    {"execution__gradient_clip_algorithm": "norm", "execution__gradient_clip_val": 1.0},
    {"execution__gradient_clip_algorithm": "value", "execution__gradient_clip_val": 0.1},
    {"execution__gradient_clip_algorithm": "agc", "execution__gradient_clip_val": 0.01},
]
SCHEDULES = [{}, {"training__schedule": "warmup_cosine", "training__warmup_steps": 3}]
SETTINGS = [
    {**clipping, "training__optimizer": optimizer, **schedule}
    for clipping, optimizer, schedule in itertools.product(CLIPPING, ("adam", "adamw", "sgd"), SCHEDULES)
] + [{"training__loss": "poisson"}, {"model__architecture": "stable_hybrid"}, {"model__architecture": "fno"}]


class Counted(Callback):
    """Counts from the end of each batch to that of the next, Lightning's own code and the loader included."""

    def __init__(self):
        self.modes = Waits(), Reads()
        self.counts = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 0 and trainer.current_epoch == 0:
            for mode in self.modes:
                mode.__enter__()
        if trainer.current_epoch == 0:
            self.counts.append(sum(mode.count for mode in self.modes))
            if trainer.is_last_batch:
                for mode in reversed(self.modes):
                    mode.__exit__(None, None, None)


def watch(spec, directory, *others, device="cpu"):
    """Train a trial with everything that watches one."""
    training = set_up(spec)
    with Journal(directory) as journal:
        monitor = training.monitor(journal)
        snapshots = Snapshots(monitor, directory)
        callbacks = [
            monitor,
            snapshots,
            BlackBox(monitor, snapshots, directory / "box", about={}, announce=lambda folder: None),
            BestCheckpoint(directory / "best.safetensors", spec),
            BlockStatistics(journal, watched_blocks(training.module.generator)),
            ResourceSampler(journal),
        ]
        training.fit([*callbacks, *others], torch.device(device), directory)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: " ".join(map(str, settings.values())))
def test_no_step_reads_the_device(spec, tmp_path, settings):
    counted = Counted()
    watch(spec(training__epochs=1, **settings), tmp_path, counted)
    assert len(counted.counts) > 5
    # The last step ends the block of steps that is read at once.
    assert [after - before for before, after in itertools.pairwise(counted.counts[:-1])] == [0] * (
        len(counted.counts) - 2
    )


def test_a_read_would_be_seen(spec, tmp_path):
    class Reading(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            float(next(pl_module.parameters()).grad.sum())

    counted = Counted()
    watch(spec(training__epochs=1), tmp_path, Reading(), counted)
    assert all(after > before for before, after in itertools.pairwise(counted.counts))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: torch says there itself what waits")
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: " ".join(map(str, settings.values())))
def test_no_step_waits_for_a_gpu(spec, tmp_path, settings):
    class Strict(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            assert batch[0].is_cuda
            torch.cuda.set_sync_debug_mode("error" if batch_idx > 0 and not trainer.is_last_batch else "default")

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            torch.cuda.set_sync_debug_mode("default")

    try:
        watch(spec(training__epochs=1, **settings), tmp_path, Strict(), device="cuda")
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_data_stays_on_a_device_in_a_quarter_of_its_free_memory():
    assert fits(113_000_000, 452_000_000)
    assert not fits(113_000_000, 451_999_999)
