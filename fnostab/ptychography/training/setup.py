"""Set up a training: model, data and trainer, identical for a trial and for the replay of its failure."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch import nn

from fnostab.errors import LaunchError
from fnostab.monitor import StabilityMonitor, StateFiles
from fnostab.ptychography.data import GridLines, GridLinesData, prepare
from fnostab.ptychography.models import build_initialised, residual_blocks
from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.training.module import PtychoModule
from fnostab.ptychography.training.precision import arithmetic
from fnostab.record.journal import Sink
from fnostab.record.outcome_rules import OutcomeRules
from fnostab.record.trial import TrialSpec
from fnostab.seeding import stream_seed


@dataclass(frozen=True)
class Training:
    """Trial that is ready to be trained.

    Attributes:
        config: configuration of the trial.
        data: data set.
        module: network with physics and loss.
        batches: Lightning data module.
        constant_loss: validation loss of the best constant output.
        layers_seed: seed of random numbers drawn during training, such as dropout.
        rules: outcome rules.
    """

    config: TrialConfig
    data: GridLines
    module: PtychoModule
    batches: GridLinesData
    constant_loss: float
    layers_seed: int
    rules: OutcomeRules

    def monitor(self, sink: Sink | None) -> StabilityMonitor:
        """Build a monitor with the trial's outcome rules, which records to ``sink``."""
        return StabilityMonitor(
            sink,
            rules=self.rules,
            val_loss_name=self.config.training.val_loss_name,
            baseline=self.constant_loss,
            block_steps=self.config.monitor.block_steps,
            after_failure=self.config.monitor.after_failure,
            warmup_steps=self.config.training.warmup(len(self.batches.train_dataloader())),
        )

    def fit(
        self, callbacks: Sequence[Callback], device: torch.device, directory: Path, resume: Path | None = None
    ) -> None:
        """Train from the start, or from the state file ``resume`` written by `fnostab.monitor.state`."""
        trainer = Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            max_epochs=self.config.training.epochs,
            callbacks=list(callbacks),
            # LightningEnvironment: otherwise Lightning would requeue Slurm jobs itself
            plugins=[LightningEnvironment(), StateFiles()],
            default_root_dir=directory,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        torch.manual_seed(self.layers_seed)
        with warnings.catch_warnings(), arithmetic(self.config.execution.convolution_precision, device):
            warnings.filterwarnings("ignore", module="lightning")  # advice on worker processes, not applicable
            trainer.fit(self.module, self.batches, ckpt_path=resume)


def set_up(spec: TrialSpec, kind: type[PtychoModule] = PtychoModule) -> Training:
    """Build the data set of a trial, and its network with the initial weights of its seed.

    Args:
        spec: specification of the trial.
        kind: class of the Lightning module.

    Raises:
        FnostabError: the data set or the network can't be made.
    """
    config = TrialConfig.from_dotted(spec.settings)
    data = prepare(config.data, config.data_seed(spec.seed), spec.shared_dir)
    generator = build_initialised(config.model, config.stream(spec.seed, "initialisation"))
    module = kind(generator, data, config)
    order_seed = config.stream(spec.seed, "data_order")
    batches = GridLinesData(data, config.training.batch_size, order_seed)
    rules = config.monitor.outcome_rules.model_copy(update={"of": spec.rules.of})
    return Training(config, data, module, batches, module.constant_loss(), stream_seed(order_seed, "layers"), rules)


def choose_device(wanted: str) -> torch.device:
    """Choose the device for ``execution.device``.

    Raises:
        LaunchError: ``cuda`` is configured, but torch finds no GPU.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise LaunchError("execution.device=cuda, but torch sees no GPU here: use auto or cpu, or fix the driver")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def watched_blocks(generator: nn.Module) -> Mapping[str, nn.Module]:
    """Modules to watch by name: residual blocks, or the direct children of a custom network."""
    return residual_blocks(generator) or dict(generator.named_children())
