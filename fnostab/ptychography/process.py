"""Train the trials of one process: one trial, or several of one arm in lockstep."""

import logging
from collections.abc import Sequence
from pathlib import Path

from fnostab.ptychography.lockstep import train_in_lockstep
from fnostab.ptychography.training.trial import run_trial
from fnostab.record.outcomes import Outcome
from fnostab.record.trial import TrialSpec


def train(specs: Sequence[TrialSpec], directories: Sequence[Path]) -> list[Outcome | None]:
    """Train trials, several of them in lockstep.

    Args:
        specs: specifications of the trials.
        directories: their folders.

    Returns:
        The outcome of each trial; None for one that could not be carried out.

    Raises:
        FnostabError: a single trial could not be started.
        LaunchError: the trials can't be trained in lockstep.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # Lightning sets the level at import
    if len(specs) > 1:
        return train_in_lockstep(specs, directories)
    return [run_trial(specs[0], directories[0])]
