"""Measure the activations of every block of a network, at initialisation and after training.

The drift hypothesis is that y = x + GELU(...) adds a positive mean in every block, so that the mean grows with depth.
At initialisation the network is run on the first validation batch; after training the values that the trial recorded at
its last validation are used.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from fnostab.monitor.block_statistics import block_states
from fnostab.ptychography.data import GridLinesData, prepare
from fnostab.ptychography.models import build_initialised
from fnostab.ptychography.settings import TrialConfig
from fnostab.ptychography.training.setup import watched_blocks
from fnostab.record import names
from fnostab.record.journal import read_journal
from fnostab.record.lines import FILE_NAME, Point
from fnostab.record.trial import TrialSpec

BlockStates = Mapping[str, Mapping[str, float]]
"""Finite values by block, in execution order, and by quantity, as in ``names.BLOCK_QUANTITIES``."""


def at_initialisation(spec: TrialSpec) -> BlockStates:
    """Measure the network of a trial with its initial weights.

    Raises:
        FnostabError: the data set or the network can't be made.
    """
    config = TrialConfig.from_dotted(spec.settings)
    return _states(build_initialised(config.model, config.stream(spec.seed, "initialisation")), spec)


def recorded_last(directory: Path) -> BlockStates:
    """Read the state of the blocks at a trial's last validation from its journal; empty without a validation."""
    last: Mapping[str, float] = {}
    for record, _ in read_journal(directory / FILE_NAME):
        if isinstance(record, Point) and any(name.startswith(names.ACTIVATION_MEAN) for name in record.values):
            last = record.values
    states: dict[str, dict[str, float]] = {}
    for name, value in last.items():
        quantity, slash, block = name.partition("/")
        if quantity + slash in names.BLOCK_QUANTITIES:
            states.setdefault(block, {})[quantity + slash] = value
    return states


def _states(generator: nn.Module, spec: TrialSpec) -> BlockStates:
    config = TrialConfig.from_dotted(spec.settings)
    data = prepare(config.data, config.data_seed(spec.seed), spec.shared_dir)
    amplitudes, _ = next(iter(GridLinesData(data, config.training.batch_size, 0).val_dataloader()))
    with torch.no_grad(), block_states(watched_blocks(generator)) as seen:
        generator.eval()(amplitudes)
    finite = {
        block: {quantity: float(value) for quantity, value in state.items() if math.isfinite(value)}
        for block, state in seen.items()
    }
    return {block: state for block, state in finite.items() if state}
