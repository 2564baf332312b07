import lightning
import pytest
import torch

from fnostab.ptychography.data import GridLinesData
from fnostab.ptychography.data.module import PatternLoader


class Recorder(lightning.LightningModule):
    """Records the indices of every batch that the Trainer hands over."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = {"train": {}, "validation": []}
        self.amplitudes = {"train": [], "validation": []}

    def training_step(self, batch, _):
        amplitudes, indices = batch
        self.seen["train"].setdefault(self.current_epoch, []).append(indices)
        self.amplitudes["train"].append(amplitudes)
        return self.weight * amplitudes.mean()

    def validation_step(self, batch, _):
        amplitudes, indices = batch
        self.seen["validation"].append(indices)
        self.amplitudes["validation"].append(amplitudes)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _fit(data, tmp_path, epochs, checkpoint=None, **options):
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )
    recorder = Recorder()
    trainer.fit(recorder, datamodule=GridLinesData(data, 16, order_seed=7, **options), ckpt_path=checkpoint)
    return trainer, recorder


@pytest.mark.filterwarnings("ignore")
def test_trainer_sees_every_pattern_once_an_epoch_in_that_epochs_order(data, tmp_path):
    _, recorder = _fit(data, tmp_path, epochs=3)
    module = GridLinesData(data, 16, order_seed=7)
    for epoch, batches in recorder.seen["train"].items():
        assert [len(batch) for batch in batches] == [16, 16, 16, 16, 16, 1]
        assert torch.equal(torch.cat(batches), module.epoch_order(epoch))
    assert len(recorder.seen["train"]) == 3


@pytest.mark.filterwarnings("ignore")
def test_resumed_training_goes_on_in_the_order_of_its_epoch(data, tmp_path):
    trainer, _ = _fit(data, tmp_path, epochs=2)
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    _, resumed = _fit(data, tmp_path, epochs=4, checkpoint=tmp_path / "two.ckpt")
    module = GridLinesData(data, 16, order_seed=7)
    assert list(resumed.seen["train"]) == [2, 3]
    for epoch, batches in resumed.seen["train"].items():
        assert torch.equal(torch.cat(batches), module.epoch_order(epoch))


@pytest.mark.filterwarnings("ignore")
def test_test_patterns_reach_neither_training_nor_validation(data, tmp_path):
    _, recorder = _fit(data, tmp_path, epochs=1)
    for split in ("train", "validation"):
        seen, own = torch.cat(recorder.amplitudes[split]), getattr(data, split).amplitudes
        assert torch.equal(seen.sum(dim=(1, 2, 3)).sort().values, own.sum(dim=(1, 2, 3)).sort().values)
        distance = torch.cdist(seen.flatten(1).double(), data.test.amplitudes.flatten(1).double())
        assert distance.min() > 0


def test_order_is_a_permutation_that_depends_on_epoch_and_seed_alone(data):
    module = GridLinesData(data, 16, order_seed=0)
    orders = [module.epoch_order(epoch) for epoch in range(3)]
    orders.append(GridLinesData(data, 16, order_seed=1).epoch_order(0))
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(81))
    assert len({tuple(order.tolist()) for order in orders}) == 4
    torch.manual_seed(123)
    assert torch.equal(GridLinesData(data, 4, order_seed=0).epoch_order(2), orders[2])


def test_batches_are_the_patterns_at_their_indices(data):
    module = GridLinesData(data, 16, order_seed=0, eval_batch_size=10)
    for amplitudes, indices in module.train_dataloader():
        assert torch.equal(amplitudes, data.train.amplitudes[indices])
    loader = module.val_dataloader()
    batches = list(loader)
    assert len(batches) == len(loader) == 3
    assert torch.equal(torch.cat([indices for _, indices in batches]), torch.arange(25))
    assert torch.equal(torch.cat([amplitudes for amplitudes, _ in batches]), data.validation.amplitudes)


@pytest.mark.parametrize(("n", "steps"), [(6889, 431), (529, 34)])
def test_last_smaller_batch_of_an_epoch_is_kept(n, steps):
    loader = PatternLoader(torch.zeros(n, 1, 1, 1), batch_size=16)
    assert len(loader) == len(list(loader)) == steps
