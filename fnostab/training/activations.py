"""Mean and spread of every block's output, before and after training.

The drift hypothesis is that y = x + GELU(...) adds a positive mean at every block, so that the mean
grows with depth. Here it is measured: at initialisation by running the network, after training from
what the trial recorded at its last validation.
"""

from collections.abc import Mapping
from pathlib import Path

import torch

from fnostab import names
from fnostab.callbacks.block_statistics import block_outputs
from fnostab.data import prepare
from fnostab.journal import FILE_NAME, Point, read_journal
from fnostab.models import build_initialised
from fnostab.training.setup import watched_blocks
from fnostab.trial import TrialSpec

__all__ = ["BlockMoments", "at_initialisation", "recorded_last"]

BlockMoments = Mapping[str, tuple[float, float]]  # block -> (mean, standard deviation), in the order of depth
PATTERNS = 64


def at_initialisation(spec: TrialSpec) -> BlockMoments:
    """Moments of each block's output on the first validation patterns, with the trial's first weights."""
    config = spec.config
    data = prepare(config.data, config.data_seed(spec.seed), spec.data_dir)
    generator = build_initialised(config.model, config.stream(spec.seed, "initialisation")).eval()
    with torch.no_grad(), block_outputs(watched_blocks(generator)) as seen:
        generator(data.validation.amplitudes[:PATTERNS])
    return {name: (float(mean), float(std)) for name, (mean, std) in seen.items()}


def recorded_last(directory: Path) -> BlockMoments:
    """The same at the trial's last validation, from its journal; empty if it never came to one."""
    means: dict[str, float] = {}
    stds: dict[str, float] = {}
    for record, _ in read_journal(directory / FILE_NAME):
        if isinstance(record, Point):
            for name, value in record.values.items():
                if name.startswith(names.ACTIVATION_MEAN):
                    means[name.removeprefix(names.ACTIVATION_MEAN)] = value
                elif name.startswith(names.ACTIVATION_STD):
                    stds[name.removeprefix(names.ACTIVATION_STD)] = value
    return {name: (mean, stds[name]) for name, mean in means.items() if name in stds}
